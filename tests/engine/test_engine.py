"""A loaded engine: the same numbers as the model, lambda as data, rows that do not see each other."""

import shutil

import pytest
import torch
from PIL import Image

from fastgen.engine.adapters import ConditionedUNet
from fastgen.engine.build import build
from fastgen.engine.export import export_onnx
from fastgen.engine.load import load_engine
from fastgen.engine.model import load_model
from fastgen.engine.model_files import find_sources
from fastgen.engine.parity import example_inputs
from fastgen.engine.spec import Component, TensorSpec
from fastgen.errors import EngineError

PARTS = ("text_encoder", "image_encoder", "unet", "vae_decoder", "vae_encoder")


@pytest.fixture(scope="module")
def model(tiny_model):
    return load_model(find_sources(tiny_model))


@pytest.fixture(scope="module")
def torch_engine(tiny_model, tmp_path_factory):
    path = build(tiny_model, backend="torch", batch=4, out=tmp_path_factory.mktemp("torch") / "e", say=lambda _: None)
    return load_engine(path)


@pytest.fixture(params=["onnxruntime", "torch"])
def engine(request, tiny_engine, torch_engine):
    return tiny_engine if request.param == "onnxruntime" else torch_engine


def inputs_of(engine, name, rows):
    return example_inputs(engine.spec.components[name], rows=rows, vocabulary=len(engine.tokenizer))


@torch.no_grad()
@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("rows", [1, 9])
def test_equals_the_model(engine, model, name, rows):
    inputs = inputs_of(engine, name, rows)
    expected = model.modules[name](**inputs)
    torch.testing.assert_close(engine.run(name, inputs), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PARTS)
def test_a_row_does_not_depend_on_batch_size_or_place(engine, name):
    """Bit for bit: this is the promise that an image depends on its row and the engine only."""
    inputs = inputs_of(engine, name, 8)
    together = engine.run(name, inputs)
    for rows in ([0], [7], [3, 1], list(range(7)), list(range(7, -1, -1)), [2] * 5):
        part = engine.run(name, {key: value[rows] for key, value in inputs.items()})
        assert torch.equal(part, together[rows]), f"rows {rows}"


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize("threads", [2, 3, 5, 16])
def test_a_row_does_not_depend_on_its_place_with_any_number_of_threads(tiny_model, tmp_path_factory, backend, threads):
    if backend == "openvino":
        pytest.importorskip("openvino")
    path = tmp_path_factory.getbasetemp() / f"places-{backend}"
    build(tiny_model, backend=backend, batch=6, out=path, say=lambda _: None)  # once: after that it is up to date
    before = torch.get_num_threads()
    try:
        engine = load_engine(path, threads=threads)
        for name in PARTS:
            inputs = inputs_of(engine, name, 1)
            output = engine.run(name, {key: tensor.expand(6, *tensor.shape[1:]) for key, tensor in inputs.items()})
            assert all(torch.equal(row, output[0]) for row in output), name
    finally:
        torch.set_num_threads(before)  # the torch backend has no number of its own


@pytest.mark.parametrize("name", PARTS)
def test_threads_change_no_bit(tiny_engine, tiny_engine_path, name):
    inputs = inputs_of(tiny_engine, name, 5)
    one, two = (load_engine(tiny_engine_path, threads=threads).run(name, inputs) for threads in (1, 2))
    assert torch.equal(one, two)


def test_lambda_is_data(engine, model):
    inputs = inputs_of(engine, "unet", 4)
    inputs = {key: value[:1].expand(4, *value.shape[1:]) for key, value in inputs.items()}
    inputs["ip_scale"] = torch.tensor([0.0, 0.3, 0.6, 0.9])
    noise = engine.unet(**inputs)
    assert min((noise[i] - noise[j]).abs().max() for i in range(4) for j in range(i)) > 1e-3
    other = engine.unet(**{**inputs, "image_embeds": inputs["image_embeds"] * -1})
    assert torch.equal(other[0], noise[0]), "lambda 0 must not see the image"
    assert (other[1:] - noise[1:]).abs().max() > 1e-3


def test_calls_are_checked_at_the_door(engine):
    good = inputs_of(engine, "unet", 2)
    for change, message in [
        ({"sample": good["sample"][:, :4]}, r"unet: got sample float32 \(2, 4, 16, 16\), needs sample float32 \(B, 8"),
        ({"ip_scale": good["ip_scale"].double()}, r"got ip_scale float64 \(2,\), needs ip_scale float32 \(B\)"),
        ({"ip_scale": torch.tensor(0.5)}, r"got ip_scale float32 \(\)"),
        ({"ip_scale": torch.zeros(3)}, "same number of rows"),
    ]:
        with pytest.raises(EngineError, match=message):
            engine.unet(**{**good, **change})
    with pytest.raises(EngineError, match="same number of rows, at least one"):
        engine.unet(**{key: value[:0] for key, value in good.items()})
    with pytest.raises(EngineError, match="got the inputs"):
        engine.run("unet", {"sample": good["sample"]})


def test_small_parts_come_with_the_engine(engine, model):
    ids = engine.tokenizer(["a photo of a red cat"], padding="max_length", max_length=77, return_tensors="pt").input_ids
    assert engine.encode_text(ids).shape == (1, 77, 32)
    pixels = engine.feature_extractor([Image.new("RGB", (80, 50), "red")])
    assert pixels.shape == (1, 3, 32, 32) and engine.encode_image(pixels).shape == (1, 4, 32)
    assert torch.equal(engine.uncond_image_embeds.cpu(), model.uncond_image_embeds)
    assert engine.uncond_image_embeds.abs().max() > 0.1
    assert engine.scheduler_config["_class_name"] == "DDIMScheduler"
    assert engine.scheduler_config["prediction_type"] == "v_prediction"
    assert (engine.spec.latent_shape, engine.spec.width, engine.spec.scaling_factor) == ((8, 16, 16), 64, 0.7)
    assert engine.decode(torch.randn(1, 8, 16, 16) * 50).abs().max() <= 1


def test_model_without_adapter(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "text-only")
    shutil.rmtree(folder / "ip_adapter")
    engine = load_engine(build(folder, batch=2, backend="torch", out=tmp_path / "engine", say=lambda _: None))
    assert not engine.spec.has_image_prompt and "image_encoder" not in engine.spec.components
    inputs = inputs_of(engine, "unet", 2)
    noise = engine.unet(**inputs)
    assert torch.equal(noise, engine.unet(**{**inputs, "ip_scale": inputs["ip_scale"] + 1}))
    assert engine.uncond_image_embeds.shape == (1, 4, 32)
    with pytest.raises(EngineError, match="has no IP-Adapter.*--ip-adapter"):
        engine.encode_image(torch.zeros(1, 3, 32, 32))


def test_graph_without_adapter_keeps_its_image_inputs(tmp_path):
    import onnxruntime
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        mid_block_type=None,
        layers_per_block=1,
        attention_head_dim=4,
        norm_num_groups=4,
        cross_attention_dim=8,
    )
    shapes = {"sample": (4, 4, 4), "timestep": (), "text_embeds": (77, 8), "image_embeds": (4, 8), "ip_scale": ()}
    tensors = tuple(TensorSpec(name=name, dtype="float32", shape=shape) for name, shape in shapes.items())
    part = Component(inputs=tensors, output=TensorSpec(name="noise", dtype="float32", shape=(4, 4, 4)))
    export_onnx(ConditionedUNet(unet).eval(), part, tmp_path / "unet.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "unet.onnx", providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == list(shapes)
    feeds = {key: value.numpy() for key, value in example_inputs(part, rows=3, vocabulary=9).items()}
    assert session.run(None, feeds)[0].shape == (3, 4, 4, 4)


def test_fused_lora_is_recorded_and_changes_the_output(tiny_model, torch_engine, tmp_path):
    from peft import LoraConfig, get_peft_model

    from tests.tiny_model import make_unet

    lora = get_peft_model(make_unet(), LoraConfig(r=2, target_modules=["to_q"]))
    for key, value in lora.named_parameters():
        if "lora_B" in key:
            value.data.normal_()
    lora.save_pretrained(tmp_path / "pets")
    path = build(
        tiny_model,
        lora=[f"pets={tmp_path / 'pets'}@0.5"],
        backend="torch",
        batch=4,
        out=tmp_path / "engine",
        say=lambda _: None,
    )
    engine = load_engine(path)
    assert engine.spec.adapters == {"pets": 0.5} and engine.spec.targets("pets") == ("unet",)
    assert "adapter_model.safetensors" in engine.spec.lora[0]["files"]
    assert engine.fingerprint != torch_engine.fingerprint
    inputs = inputs_of(engine, "unet", 1)
    assert (engine.unet(**inputs) - torch_engine.unet(**inputs)).abs().max() > 1e-3
