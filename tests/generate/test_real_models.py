"""Stable Diffusion 2.1's traits and a plus adapter, narrow: the images are those of diffusers' own pipeline.

Linear projections, a list of head counts, OpenCLIP's text encoder, v-prediction, upcast_attention, and 16 image tokens
from the image encoder's last but one hidden state.
"""

import numpy as np
import pytest
import torch
from PIL import Image

from fastgen.generate.batch import complete_row
from fastgen.generate.run import generate
from fastgen.records import Row
from tests.real_shapes import image_config, meta_parts, write_image_encoder, write_ip_adapter, write_model

SIDE, SCALE = 64, 10


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """2.1 with a plus adapter in an official `.bin`, made for its width."""
    folder = write_model(tmp_path_factory.mktemp("narrow") / "sd21", "sd21", scale=SCALE)
    write_image_encoder(folder / "ip_adapter" / "image_encoder", scale=SCALE)
    unet, clip_dim = meta_parts("sd21", SCALE)["unet"], image_config(SCALE)["hidden_size"]
    write_ip_adapter(folder / "ip_adapter" / "plus.bin", unet, clip_dim=clip_dim, plus=True)
    return folder


@pytest.fixture(scope="module")
def torch_engine(model, tmp_path_factory):
    return open_built(model, tmp_path_factory.mktemp("torch") / "engine", "torch")


@pytest.fixture(scope="module")
def pipeline(model):
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(model, safety_checker=None)
    pipe.load_ip_adapter(str(model), subfolder="ip_adapter", weight_name="plus.bin")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def open_built(model, out, backend):
    from fastgen.engine.build import build
    from fastgen.engine.load import load_engine

    return load_engine(build(model, backend=backend, batch=2, out=out, say=lambda line: None))


def reference(ref):
    generator = np.random.default_rng(7)
    small = Image.fromarray(generator.integers(0, 256, (5, 4, 3), dtype=np.uint8))
    return small.resize((90, 70), Image.Resampling.BICUBIC)


def make_row(engine, index=0, **fields):
    obj = {
        "id": f"r{index}",
        "class": "cat",
        "prompt": "a photo of the cat on grass",
        "negative_prompt": "lowres, monochrome",
        "seed": 100 + index,
        "ref": {"id": "ref"},
        "lambda": 0.35,
        "steps": 3,
        "guidance_scale": 5.0,
        **fields,
    }
    return complete_row(Row.from_json(obj, None), engine.spec, engine.scheduler_config)


def assert_alike(ours, expected):
    assert ours.shape == expected.shape and np.ptp(expected) > 20
    difference = np.abs(ours.astype(int) - expected.astype(int))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


@pytest.mark.parametrize(("weight", "guidance"), [(0.0, 5.0), (0.35, 5.0), (1.0, 5.0), (0.6, 1.0)])
def test_equals_diffusers(torch_engine, pipeline, weight, guidance):
    row = make_row(torch_engine, **{"lambda": weight, "guidance_scale": guidance})
    assert row.scheduler == "ddim" and torch_engine.spec.components["unet"].inputs[3].shape == (16, 96)
    pipeline.set_ip_adapter_scale(weight)
    expected = pipeline(
        row.prompt,
        negative_prompt=row.negative_prompt,
        ip_adapter_image=reference(None).resize((SIDE, SIDE), Image.Resampling.BILINEAR),
        num_inference_steps=row.steps,
        guidance_scale=guidance,
        height=SIDE,
        width=SIDE,
        generator=[torch.Generator("cpu").manual_seed(row.seed)],
    ).images[0]
    sample = next(generate([row], torch_engine, reference))
    assert sample.status == 0
    assert_alike(sample.image, np.asarray(expected))


def test_no_image_is_the_hidden_state_of_a_picture_of_zeros(torch_engine, pipeline):
    hidden = pipeline.image_encoder(torch.zeros(1, 3, 56, 56), output_hidden_states=True).hidden_states[-2]
    (projection,) = pipeline.unet.encoder_hid_proj.image_projection_layers
    torch.testing.assert_close(torch_engine.uncond_image_embeds.cpu(), projection(hidden), rtol=1e-4, atol=1e-4)


def test_upcast_attention_survives_the_build(torch_engine, pipeline):
    assert pipeline.unet.config.upcast_attention
    unet = torch_engine._backend._programs["unet"]._module.unet
    assert unet.config.upcast_attention and torch_engine.scheduler_config["prediction_type"] == "v_prediction"
    assert all(m.upcast_attention for name, m in unet.named_modules() if name.endswith("attn2"))


def test_backends_make_the_same_image(model, torch_engine, tmp_path):
    exported = open_built(model, tmp_path / "engine", "onnxruntime")
    images = [next(generate([make_row(e)], e, reference)).image for e in (torch_engine, exported)]
    assert_alike(images[0], images[1])
