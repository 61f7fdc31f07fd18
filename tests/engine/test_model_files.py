"""Real models come as half-precision variants, old pickles, single files and with other VAEs."""

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastgen.engine.model import load_model
from fastgen.engine.model_files import find_sources
from fastgen.engine.weights import part_files, weight_files
from fastgen.errors import ModelError
from tests.ldm_checkpoint import write_checkpoint
from tests.real_shapes import write_model

WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "image_encoder": "model.safetensors",
}


@pytest.fixture
def model_copy(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model")


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A folder with the traits of Stable Diffusion 1.5, narrow."""
    return write_model(tmp_path_factory.mktemp("narrow") / "sd15", "sd15", scale=10)


def weights_of(model):
    modules = model.modules
    parts = {"unet": modules["unet"].unet, "text": modules["text_encoder"].encoder, "vae": modules["vae_decoder"].vae}
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}


def assert_same(got, expected, *, atol=0.0):
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert got[key].dtype == value.dtype
        torch.testing.assert_close(got[key], value, rtol=0, atol=atol, msg=key)


def test_half_precision_variants_are_found(tiny_model, model_copy):
    for part, name in WEIGHTS.items():
        path = model_copy / part / name
        half = {key: value.half() for key, value in load_file(path).items()}
        save_file(half, path.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
        path.unlink()
    sources = find_sources(model_copy)
    files = sources.to_json()["model"]["files"]
    assert {"unet/diffusion_pytorch_model.fp16.safetensors", "text_encoder/model.fp16.safetensors"} <= files.keys()
    got = weights_of(load_model(sources))
    assert_same(got, weights_of(load_model(find_sources(tiny_model))), atol=2e-3)
    assert all(value.dtype == torch.float32 for value in got.values() if value.is_floating_point())


def test_old_bin_files_load_and_their_code_does_not_run(tiny_model, model_copy):
    for part, name in WEIGHTS.items():
        path = model_copy / part / name
        old = {"model.safetensors": "pytorch_model.bin"}.get(name, "diffusion_pytorch_model.bin")
        torch.save(load_file(path), path.with_name(old))
        path.unlink()
    assert "text_encoder/pytorch_model.bin" in find_sources(model_copy).to_json()["model"]["files"]
    assert_same(weights_of(load_model(find_sources(model_copy))), weights_of(load_model(find_sources(tiny_model))))

    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit('ran')",))

    for part in ("text_encoder", "unet"):
        (path,) = (model_copy / part).glob("*.bin")
        path.write_bytes(pickle.dumps({"weight": Evil()}, protocol=2))
        with pytest.raises(ModelError, match=f"{part} cannot be loaded as"):
            load_model(find_sources(model_copy))


def test_only_what_is_loaded_counts(model_copy):
    before = find_sources(model_copy).to_json()
    for name in ("diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bin", "model.onnx", "x.msgpack"):
        (model_copy / "unet" / name).write_text("another format")
    assert find_sources(model_copy).to_json() == before
    assert part_files(model_copy / "unet") == ["config.json", "diffusion_pytorch_model.safetensors"]
    for path in weight_files(model_copy / "unet"):
        path.unlink()
    assert [p.name for p in weight_files(model_copy / "unet")] == ["diffusion_pytorch_model.fp16.safetensors"]


def test_a_part_without_weights_is_refused(model_copy):
    (model_copy / "vae" / WEIGHTS["vae"]).unlink()
    with pytest.raises(ModelError, match=r"vae has no weights; needed is a \.safetensors"):
        find_sources(model_copy)


def test_another_vae_takes_the_place_of_the_own(tiny_model, model_copy, tmp_path):
    path = model_copy / "vae" / WEIGHTS["vae"]
    other = {key: value + 0.25 for key, value in load_file(path).items()}
    save_file(other, path, metadata={"format": "pt"})
    own, both = find_sources(tiny_model), [find_sources(tiny_model, vae=v) for v in (model_copy, model_copy / "vae")]
    assert both[0] == both[1] and both[0].vae == model_copy / "vae"
    files = [sources.to_json()["model"]["files"] for sources in (own, both[0])]
    assert files[0].keys() == files[1].keys()
    assert [key for key in files[0] if files[0][key] != files[1][key]] == [f"vae/{WEIGHTS['vae']}"]
    model = load_model(both[0])
    assert_same(model.modules["vae_decoder"].vae.state_dict(), other)
    assert model.modules["vae_encoder"].vae is model.modules["vae_decoder"].vae


def test_vaes_that_do_not_fit_are_refused(tiny_model, narrow, tmp_path):
    with pytest.raises(ModelError, match="the UNet takes 8 channels, the VAE makes latents of 4"):
        load_model(find_sources(tiny_model, vae=narrow))
    with pytest.raises(ModelError, match="has no config.json with weights beside it"):
        find_sources(tiny_model, vae=tmp_path)
    with pytest.raises(ModelError, match="VAE 'nobody/nothing' was not found: it is no folder, and the hub says"):
        find_sources(tiny_model, vae="nobody/nothing")
    folder = shutil.copytree(narrow / "vae", tmp_path / "vae")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "_class_name": "AutoencoderTiny"}))
    with pytest.raises(ModelError, match="is a AutoencoderTiny, engines are made from AutoencoderKL"):
        find_sources(tiny_model, vae=folder)


def test_parts_of_two_base_models_are_refused(narrow, tmp_path):
    other = write_model(tmp_path / "sd21", "sd21", scale=10)
    shutil.rmtree(other / "text_encoder")
    shutil.copytree(narrow / "text_encoder", other / "text_encoder")
    with pytest.raises(ModelError, match="the text encoder is 64 wide, the UNet's cross-attention takes 96"):
        load_model(find_sources(other))


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_single_file_is_the_folder_it_was_made_from(narrow, tmp_path, suffix):
    configs = shutil.copytree(narrow, tmp_path / "configs", ignore=shutil.ignore_patterns("*.safetensors"))
    path = write_checkpoint(tmp_path / f"painter{suffix}", narrow)
    sources = find_sources(path, config=configs)
    assert sources.id == "painter"
    files = sources.to_json()["model"]["files"]
    assert {path.name, "unet/config.json", "tokenizer/vocab.json"} <= files.keys()
    assert_same(weights_of(load_model(sources)), weights_of(load_model(find_sources(narrow))))
    replaced = find_sources(path, config=configs, vae=narrow)
    assert f"vae/{WEIGHTS['vae']}" in replaced.to_json()["model"]["files"]
    assert replaced.defaults()["size"] == 64


V2 = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"
XL = "conditioner.embedders.0.model.transformer.resblocks.9.mlp.c_proj.bias"
FIRST = "model.diffusion_model.input_blocks.0.0.weight"


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"lora_unet_x.alpha": (1,)}, "is no Stable Diffusion checkpoint: it has no model.diffusion_model"),
        ({FIRST: (320, 4, 3, 3), V2: (320, 1024)}, "2.x checkpoint, which does not say .* with --config"),
        ({FIRST: (320, 9, 3, 3), V2: (320, 768)}, "is a checkpoint of kind inpainting"),
        ({FIRST: (320, 4, 3, 3), XL: (8,)}, "is a checkpoint of kind xl_refiner"),
        ({FIRST: (320, 4, 3, 3), V2: (320, 768)}, "--config '.*v1-5' was not found: .* Give a folder"),
    ],
)
def test_single_files_that_cannot_be_used_say_why(tmp_path, shapes, message):
    save_file({key: torch.zeros(shape) for key, shape in shapes.items()}, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=message):
        find_sources(tmp_path / "x.safetensors")


def test_a_checkpoint_with_code_in_it_is_refused(narrow, tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit('ran')",))

    path = tmp_path / "x.ckpt"
    path.write_bytes(pickle.dumps({"state_dict": Evil()}, protocol=2))
    with pytest.raises(ModelError, match="cannot be read as weights .*convert it to .safetensors"):
        load_model(find_sources(path, config=narrow))


def test_config_and_other_files_are_refused_where_they_mean_nothing(tiny_model, tmp_path):
    with pytest.raises(ModelError, match="--config is for single-file checkpoints .* is none"):
        find_sources(tiny_model, config=tiny_model)
    (tmp_path / "model.onnx").write_text("x")
    with pytest.raises(ModelError, match=r"a single file must be a checkpoint, \.safetensors or \.ckpt"):
        find_sources(tmp_path / "model.onnx")


def test_a_hub_model_with_half_precision_only_is_downloaded_as_such(tiny_model, tmp_path, monkeypatch):
    from diffusers import StableDiffusionPipeline

    asked = []

    def download(name, *, safety_checker, variant=None):
        asked.append((name, safety_checker, variant))
        return str(tiny_model if variant else tmp_path)

    monkeypatch.setattr(StableDiffusionPipeline, "download", download)
    sources = find_sources("owner/half")
    assert (sources.id, sources.folder) == ("owner/half", tiny_model)
    assert asked == [("owner/half", None, None), ("owner/half", None, "fp16")]


def test_only_the_vae_of_a_hub_model_is_downloaded(tiny_model, tmp_path, monkeypatch):
    from fnmatch import fnmatch

    import huggingface_hub

    def snapshot_download(name, *, allow_patterns):
        assert name == "owner/painter"
        for path in tiny_model.rglob("*"):
            relative = path.relative_to(tiny_model).as_posix()
            if path.is_file() and any(fnmatch(relative, pattern) for pattern in allow_patterns):
                (tmp_path / relative).parent.mkdir(exist_ok=True)
                shutil.copy(path, tmp_path / relative)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert find_sources(tiny_model, vae="owner/painter").vae == tmp_path / "vae"
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["config.json", WEIGHTS["vae"]]
