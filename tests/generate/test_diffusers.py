"""The images are those of diffusers' own pipelines on the same noise, and each row's own whatever the batch."""

import numpy as np
import pytest
import torch
from PIL import Image

from fastgen.generate.batch import complete_row
from fastgen.generate.run import generate
from fastgen.records import Row
from tests.tiny_model import IMAGE_WIDTH

PROMPT, NEGATIVE, STEPS, SIDE = "a photo of the cat on grass", "lowres, low quality", 4, 64
SCHEDULERS = {"ddim": "DDIMScheduler", "dpmsolver++": "DPMSolverMultistepScheduler"}
MORE = {
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
    "ddim_trailing": ("DDIMScheduler", {"timestep_spacing": "trailing"}),
    "dpmsolver++_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
}


@pytest.fixture(scope="module")
def torch_engine(tiny_model, tmp_path_factory):
    from fastgen.engine.build import build
    from fastgen.engine.load import load_engine

    out = tmp_path_factory.mktemp("engines") / "torch"
    return load_engine(build(tiny_model, backend="torch", batch=4, out=out, say=lambda line: None))


@pytest.fixture(scope="module")
def pipeline(tiny_model):
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
    pipe.load_ip_adapter(str(tiny_model), subfolder="ip_adapter", weight_name="ip-adapter_tiny.safetensors")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture(name):
    """A reference that is not square; smooth, so that resampling matters little."""
    generator = np.random.default_rng(sum(name.encode()))
    small = Image.fromarray(generator.integers(0, 256, (5, 4, 3), dtype=np.uint8))
    return small.resize((90, 70), Image.Resampling.BICUBIC)


def reference(ref):
    return picture(ref.id)


def make_row(engine, index=0, **fields):
    obj = {
        "id": f"r{index}",
        "class": "cat",
        "prompt": PROMPT,
        "negative_prompt": NEGATIVE,
        "seed": 100 + index,
        "ref": {"id": f"ref-{index % 3}", "role": ["ip", "init"]},
        "lambda": 0.35,
        "steps": STEPS,
        "guidance_scale": 5.0,
        **fields,
    }
    return complete_row(Row.from_json(obj, None), engine.spec, engine.scheduler_config)


def theirs(pipe, row, scheduler, extra=(), **more):
    """The image of diffusers, uint8 (H, W, 3)."""
    import diffusers

    before = pipe.scheduler
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config, **dict(extra))
    pipe.set_ip_adapter_scale(row.lambda_)
    squashed = picture(row.ref.id).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    more = {key: squashed if value == "squashed" else value for key, value in more.items()}
    try:
        image = pipe(
            row.prompt,
            negative_prompt=row.negative_prompt,
            ip_adapter_image=squashed,
            num_inference_steps=row.steps,
            guidance_scale=row.guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(row.seed)],
            **more,
        ).images[0]
    finally:
        pipe.scheduler = before
    return np.asarray(image)


def assert_alike(ours, expected):
    """Equal but for the rounding of float sums in another order."""
    assert ours.shape == expected.shape and np.ptp(expected) > 20
    difference = np.abs(ours.astype(int) - expected.astype(int))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize("weight", [0.0, 0.35, 1.0])
def test_equals_diffusers(torch_engine, pipeline, weight, guidance, scheduler):
    row = make_row(torch_engine, **{"lambda": weight, "guidance_scale": guidance, "scheduler": scheduler})
    sample = next(generate([row], torch_engine, reference))
    assert sample.status == 0
    assert_alike(sample.image, theirs(pipeline, row, SCHEDULERS[scheduler]))


@pytest.mark.parametrize("scheduler", MORE)
def test_every_other_scheduler_equals_diffusers(torch_engine, pipeline, scheduler):
    row = make_row(torch_engine, scheduler=scheduler)
    sample = next(generate([row], torch_engine, reference))
    eta = 0.3 if scheduler == "tcd" else 0.0  # the scheduler's own default, which diffusers' pipelines replace by 0
    assert_alike(sample.image, theirs(pipeline, row, *MORE[scheduler], eta=eta))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("strength", [0.3, 0.75, 1.0])
def test_img2img_equals_diffusers(torch_engine, pipeline, strength, scheduler):
    from diffusers import StableDiffusionImg2ImgPipeline

    pipe = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    row = make_row(torch_engine, mode="img2img", strength=strength, scheduler=scheduler)
    sample = next(generate([row], torch_engine, reference))
    expected = theirs(pipe, row, SCHEDULERS[scheduler], image="squashed", strength=strength)
    assert_alike(sample.image, expected)


def test_latent_mode_is_inversion_circle_and_generation_by_diffusers(torch_engine, pipeline):
    from diffusers import DDIMInverseScheduler

    init = {"kind": "circle", "refs": ["ref-1", "ref-2"], "alpha": -0.4, "inv_steps": 6}
    row = make_row(torch_engine, mode="latent", init=init, **{"lambda": None, "ref": None})
    sample = next(generate([row], torch_engine, reference))
    forward, pipeline.scheduler = pipeline.scheduler, DDIMInverseScheduler.from_config(pipeline.scheduler.config)
    try:
        starts = [inverted_by(pipeline, name) for name in init["refs"]]
    finally:
        pipeline.scheduler = forward
    theta = torch.acos(torch.nn.functional.cosine_similarity(*(x.double().flatten() for x in starts), dim=0))
    first, second = torch.sin(0.6 * theta), torch.sin(0.4 * theta)
    start = (first * starts[0] + second * starts[1]) / torch.sin(theta)
    options = {"latents": start.float(), "num_inference_steps": STEPS, "guidance_scale": 5.0}
    no_image = [torch.zeros(2, 1, IMAGE_WIDTH)]
    image = pipeline(PROMPT, negative_prompt=NEGATIVE, ip_adapter_image_embeds=no_image, **options).images[0]
    assert_alike(sample.image, np.asarray(image))


def inverted_by(pipe, name):
    """Latents at the last timestep of diffusers' own inversion: guidance 1, scale 0 for the image prompt."""
    square = picture(name).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        clean = pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor
    pipe.set_ip_adapter_scale(0.0)
    options = {"latents": clean, "num_inference_steps": 6, "guidance_scale": 1.0, "output_type": "latent"}
    return pipe(PROMPT, ip_adapter_image_embeds=[torch.zeros(1, 1, IMAGE_WIDTH)], **options).images


@pytest.mark.parametrize("backend", ["torch_engine", "tiny_engine"])
def test_every_row_of_a_batch_is_the_row_alone_bit_for_bit(backend, request):
    engine = request.getfixturevalue(backend)
    rows = [
        make_row(engine, i, **{"lambda": i / 6 or None, "guidance_scale": 2.0 + i, "prompt": f"{PROMPT} {i}"})
        for i in range(7)
    ]
    together = {s.row.id: s.image for s in generate(rows, engine, reference, batch=7)}
    for row in rows[::3]:
        alone = next(generate([row], engine, reference, batch=1))
        assert (alone.image == together[row.id]).all()
    for sample in generate(rows[::-1], engine, reference, batch=3):
        assert (sample.image == together[sample.row.id]).all()


def test_backends_make_the_same_image(torch_engine, tiny_engine):
    images = [next(generate([make_row(e)], e, reference)).image for e in (torch_engine, tiny_engine)]
    assert_alike(images[0], images[1])
