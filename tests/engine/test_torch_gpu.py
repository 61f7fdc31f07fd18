"""The torch backend on a real GPU: run with `pytest -m gpu`."""

import pytest
import torch

from fastgen.engine.build import build
from fastgen.engine.gpu import on_gpu
from fastgen.engine.load import load_engine
from fastgen.engine.model import load_model
from fastgen.engine.model_files import find_sources
from fastgen.engine.parity import PSNR_FLOOR, compare, example_inputs, reference
from fastgen.generate.denoise import Conditions, denoise, start_noise
from fastgen.generate.schedulers import Schedule

pytestmark = pytest.mark.gpu
PARTS = ("text_encoder", "image_encoder", "unet", "vae_decoder", "vae_encoder")
BATCH = 4


@pytest.fixture(scope="module")
def model(tiny_model):
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no NVIDIA GPU")
    return load_model(find_sources(tiny_model))


@pytest.fixture(scope="module", params=["fp32", "fp16", "compiled"])
def engine_path(request, model, tiny_model, tmp_path_factory):
    options = {"precision": "fp16", "compile": True} if request.param == "compiled" else {"precision": request.param}
    out = tmp_path_factory.mktemp("gpu") / request.param
    return build(tiny_model, backend="torch", batch=BATCH, out=out, say=print, **options)


@pytest.fixture(scope="module")
def engine(engine_path):
    return load_engine(engine_path)


def inputs_of(engine, name, rows):
    inputs = example_inputs(engine.spec.components[name], rows=rows, vocabulary=len(engine.tokenizer))
    return {key: value.to(engine.device) for key, value in inputs.items()}


@pytest.mark.parametrize("name", PARTS)
def test_equals_the_model_on_the_cpu(engine, model, name):
    inputs = inputs_of(engine, name, 9)
    found = compare(engine.run(name, inputs), reference(model.modules)(name, inputs))
    assert found["relative"] < 1e-3 if engine.spec.precision == "fp32" else found["psnr_db"] > PSNR_FLOOR["fp16"]


@pytest.mark.parametrize("name", PARTS)
def test_a_row_does_not_depend_on_batch_size_or_place(engine, name):
    inputs = inputs_of(engine, name, 8)
    together = engine.run(name, inputs)
    for rows in ([0], [7], [3, 1], list(range(7, -1, -1))):
        part = engine.run(name, {key: value[rows] for key, value in inputs.items()})
        assert torch.equal(part, together[rows]), f"rows {rows}"


def test_an_engine_loaded_again_makes_the_same_bits(engine, engine_path):
    inputs = inputs_of(engine, "unet", BATCH)
    assert torch.equal(load_engine(engine_path).run("unet", inputs), engine.run("unet", inputs))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sizes", [(1000, 8, 40, 77, 4), (256, 8, 80, 77, 16), (70, 2, 128, 9, 4)])
def test_one_kernel_for_text_and_image_is_two_attentions(model, dtype, sizes):
    from fastgen.engine.row_attention import attend_to_both

    length, heads, width, text, tokens = sizes
    generator = torch.Generator().manual_seed(0)
    lengths = (length, text, text, tokens, tokens)
    parts = [torch.randn(3, n, heads * width, generator=generator).to("cuda", dtype) for n in lengths]
    weights = torch.tensor([0.0, 0.3, 1.0], device="cuda")

    def attend(*parts):
        split = [part.float().unflatten(2, (heads, -1)).transpose(1, 2) for part in parts]
        return torch.nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)

    query, key, value, image_key, image_value = parts
    expected = attend(query, key, value) + weights[:, None, None] * attend(query, image_key, image_value)
    got = attend_to_both(*parts, weights, heads=heads)
    assert compare(got, expected)["psnr_db"] > (65 if dtype == torch.float16 else 47)
    again = attend_to_both(*(part[1:2] for part in parts), weights[1:2], heads=heads)
    assert torch.equal(again, got[1:2])


def conditions_of(engine, rows):
    inputs = inputs_of(engine, "unet", rows)
    return Conditions(
        text=inputs["text_embeds"],
        image=inputs["image_embeds"],
        ip_scale=inputs["ip_scale"],
        guidance=torch.full((rows,), 7.5, device=engine.device),
        negative_text=inputs["text_embeds"].flip(1),
        no_image=engine.uncond_image_embeds,
    )


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpmsolver++", "pndm"])
def test_the_host_does_not_wait_inside_the_denoising_loop(engine, scheduler):
    generators = [torch.Generator().manual_seed(i) for i in range(BATCH)]
    noise = start_noise(generators, engine.spec.latent_shape).to(engine.device)
    conditions = conditions_of(engine, BATCH)

    def draw():
        schedule = Schedule(scheduler, engine.scheduler_config, steps=4)
        start = noise * schedule.start_scale
        return denoise(engine.unet, start, schedule, conditions=conditions, generators=generators)

    first = draw()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")  # from here on, waiting raises
    try:
        second = draw()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(first, second) and first.isfinite().all()


def test_results_of_many_calls_do_not_overwrite_each_other(engine):
    inputs = inputs_of(engine, "unet", BATCH)
    scales = [0.0, 0.3, 0.6, 0.9]
    found = [engine.run("unet", {**inputs, "ip_scale": torch.full((BATCH,), scale)}) for scale in scales]
    engine.decode(inputs["sample"])  # its recording shares the memory of the UNet's
    for scale, expected in zip(scales, found, strict=True):
        again = engine.run("unet", {**inputs, "ip_scale": torch.full((BATCH,), scale)})
        assert torch.equal(again, expected)
    assert not torch.equal(found[0], found[3])


def test_attention_in_half_precision_is_fused():
    """Text and image branch as in Stable Diffusion 1.5; the plain kernels would be many times slower."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no NVIDIA GPU")
    for width in (40, 80, 160):
        for keys in (4096, 77, 4):
            q = torch.randn(2, 8, 4096, width, device="cuda", dtype=torch.float16)
            k, v = torch.randn(2, 2, 8, keys, width, device="cuda", dtype=torch.float16)
            with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION]):
                got = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            expected = torch.softmax(q.float() @ k.float().transpose(2, 3) / width**0.5, -1) @ v.float()
            assert compare(got, expected)["psnr_db"] > 50


def test_modules_work_on_the_gpu_and_come_back_unchanged(model):
    unet = model.modules["unet"]
    before = [(p.data_ptr(), p.device.type) for p in unet.parameters()]
    with on_gpu([unet, unet]):
        assert {p.device.type for p in unet.parameters()} == {"cuda"}
    assert [(p.data_ptr(), p.device.type) for p in unet.parameters()] == before
