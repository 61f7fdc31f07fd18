"""Models and adapters of the published shapes: their sizes, and (slow) the whole path over them."""

import ctypes
import gc
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tests.real_shapes import image_config, meta_parts, unet_config, vae_config, write_adapters, write_model


@pytest.fixture(autouse=True)
def give_memory_back():
    """Builds look at how much memory is free: what a full-size test took must be there again for the next."""
    yield
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("kind", "unet", "text"), [("sd15", 859_520_964, 123_060_480), ("sd21", 865_910_724, 340_387_840)]
)
def test_true_shapes_have_the_published_sizes(kind, unet, text):
    from diffusers import AutoencoderKL

    parts = meta_parts(kind)
    assert (count(parts["unet"]), count(parts["text_encoder"])) == (unet, text)
    with torch.device("meta"):
        assert count(AutoencoderKL(**vae_config(kind))) == 83_653_863


def test_the_image_encoder_has_the_published_size():
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    with torch.device("meta"):
        assert count(CLIPVisionModelWithProjection(CLIPVisionConfig(**image_config()))) == 632_076_800


def run_two(model, tmp_path, *, backend, size, lambdas, steps=2, **options):
    """Build an engine and make two images; returns the engine."""
    from fastgen.engine.build import build
    from fastgen.engine.load import load_engine
    from fastgen.generate.batch import complete_row
    from fastgen.generate.run import generate
    from fastgen.records import Row

    out = tmp_path / "engine"
    engine = load_engine(build(model, backend=backend, batch=2, size=size, out=out, say=print, **options))
    rows = []
    for i, weight in enumerate(lambdas):
        obj = {"id": f"r{i}", "class": "cat", "prompt": "a photo of the cat", "seed": i, "steps": steps}
        obj["lambda"] = weight
        obj |= {} if weight is None else {"ref": {"id": "ref"}}
        rows.append(complete_row(Row.from_json(obj, None), engine.spec, engine.scheduler_config))
    picture = Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    samples = list(generate(rows, engine, lambda ref: picture))
    assert [sample.status for sample in samples] == [0, 0]
    assert all(sample.image.shape == (size, size, 3) for sample in samples)
    assert (samples[0].image != samples[1].image).any()
    return engine


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """1.5, narrow, with every adapter; half precision only, as many published folders."""
    folder = write_model(tmp_path_factory.mktemp("narrow") / "sd15", "sd15", scale=10, half=True)
    write_adapters(folder / "adapters", "sd15", scale=10, half=True)
    return folder


@pytest.mark.parametrize("adapter", ["ip-adapter.safetensors", "ip-adapter-plus.bin"])
def test_the_path_over_every_adapter_narrow(narrow, tmp_path, adapter):
    adapters = narrow / "adapters"
    engine = run_two(
        narrow,
        tmp_path,
        backend="torch",
        size=64,
        lambdas=[0.2, 0.9],
        ip_adapter=adapters / adapter,
        lora=[f"style={adapters / 'kohya.safetensors'}@0.8", f"pets={adapters / 'peft'}"],
    )
    assert engine.spec.adapters == {"style": 0.8, "pets": 1.0}
    tokens = 4 if adapter.endswith("safetensors") else 16
    assert engine.uncond_image_embeds.shape == (1, tokens, unet_config("sd15", 10)["cross_attention_dim"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("adapter", "backend"), [("ip-adapter.safetensors", "onnxruntime"), ("ip-adapter-plus.bin", "torch")]
)
def test_stable_diffusion_1_5_at_full_size(tmp_path, adapter, backend):
    model = write_model(tmp_path / "sd15", "sd15", half=True)
    adapters = write_adapters(model / "adapters", "sd15", half=True)
    engine = run_two(
        model,
        tmp_path,
        backend=backend,
        size=256,
        lambdas=[0.2, 0.9],
        ip_adapter=adapters / adapter,
        lora=[f"style={adapters / 'kohya.safetensors'}@0.8", f"pets={adapters / 'peft'}"],
    )
    tokens = 4 if adapter.endswith("safetensors") else 16
    assert engine.spec.components["unet"].inputs[3].shape == (tokens, 768)
    assert engine.scheduler_config["_class_name"] == "PNDMScheduler"


@pytest.mark.slow
def test_stable_diffusion_2_1_at_full_size(tmp_path):
    model = write_model(tmp_path / "sd21", "sd21", half=True)
    engine = run_two(model, tmp_path, backend="onnxruntime", size=256, lambdas=[None, None])
    assert engine.spec.components["text_encoder"].output.shape == (77, 1024)
    assert engine.scheduler_config["prediction_type"] == "v_prediction"
