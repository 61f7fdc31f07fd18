"""The gate every build has to pass: the finished engine against the torch modules it was made from."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastgen.engine.precision import device_of
from fastgen.engine.spec import Component, EngineSpec
from fastgen.engine.torch_program import steady_math
from fastgen.errors import EngineError

if TYPE_CHECKING:
    from fastgen.engine.load import Engine

TOLERANCE = 1e-3
"""Largest accepted error of a float32 component, as a share of the reference's largest value."""

PSNR_FLOOR = {"fp16": 45.0, "bf16": 30.0}
"""Precision -> smallest accepted PSNR of a component's output, in dB."""

IMAGE_PSNR_FLOOR = {"fp16": 35.0, "bf16": 20.0}
"""Precision -> smallest accepted PSNR in dB of whole images, after STEPS steps with guidance."""

IMAGES = "images"
ROWS, STEPS, GUIDANCE = 2, 4, 5.0
"""Of the images that are compared."""

REFERENCE_ROWS = 2
"""Rows that the float32 modules work on at once: of large pictures more would fill a GPU's memory."""

PSNR_LIMIT = 200.0
"""dB reported for equal tensors."""

Call = Callable[[str, Mapping[str, Tensor]], Tensor]
"""Runs a component, named, on its inputs."""


def measure(modules: Mapping[str, Any], engine: "Engine") -> dict[str, Any]:
    """Run every component of an engine and of its torch modules on the same inputs.

    Args:
        modules: float32 modules, from `components.make_modules`, all on one device.
        engine: opened from the folder that is about to be published.

    Returns:
        component -> {"1" and str(spec.batch): {"max_abs", "relative", "psnr_db"}, "row": {...}}. `row` compares the
        last row of a full batch with the same row called alone: how much a result depends on its neighbours. In half
        precision also IMAGES -> the same numbers for ROWS images, drawn in STEPS steps.
    """
    spec = engine.spec
    inputs = examples(modules, spec.components, rows=spec.batch, vocabulary=len(engine.tokenizer))
    call = reference(modules)
    numbers: dict[str, Any] = {name: _measure(name, call, engine, inputs[name]) for name in spec.components}
    if spec.precision != "fp32":
        ours, theirs = (_draw(own, engine) for own in (engine.run, call))
        numbers[IMAGES] = {str(ROWS): compare(ours, theirs)}
    return numbers


def check(parity: Mapping[str, Any], spec: EngineSpec) -> None:
    """Refuse an engine that differs from its model.

    Raises:
        EngineError: an error is above what the component's precision allows, or is NaN.
    """
    bad = [
        f"{name} at batch {batch}: {problem}"
        for name, batches in parity.items()
        for batch, numbers in batches.items()
        if (problem := _problem(name, numbers, spec))
    ]
    if bad:
        raise EngineError(
            f"the built engine differs from its model: {'; '.join(bad)}. Nothing was written. "
            "Try --backend torch or --precision fp32, and please report this with the model's name"
        )


def _problem(name: str, numbers: Mapping[str, float], spec: EngineSpec) -> str | None:
    """What is wrong with a comparison; every test is written so that NaN fails it."""
    precision = spec.precision if name == IMAGES else spec.precisions[name]
    if precision == "fp32":
        within = numbers["relative"] <= TOLERANCE
        return None if within else f"error {numbers['relative']:.2e} of the largest value, allowed is {TOLERANCE:.0e}"
    floor = (IMAGE_PSNR_FLOOR if name == IMAGES else PSNR_FLOOR)[precision]
    within = numbers["psnr_db"] >= floor
    return None if within else f"PSNR {numbers['psnr_db']:.1f} dB, allowed is {floor:.0f} dB or more in {precision}"


def compare(got: Tensor, reference: Tensor) -> dict[str, float]:
    """Return the largest absolute error, its share of the reference's largest value, and the PSNR in dB."""
    got, reference = got.detach().cpu().double(), reference.detach().cpu().double()
    error = (got - reference).abs()
    peak = float(reference.abs().max())
    rmse = float(error.square().mean().sqrt())
    psnr = PSNR_LIMIT if rmse == 0 else min(PSNR_LIMIT, 20 * math.log10(max(peak, 1e-30) / rmse))
    return {"max_abs": float(error.max()), "relative": float(error.max()) / max(peak, 1e-30), "psnr_db": psnr}


def example_inputs(part: Component, *, rows: int, vocabulary: int, seed: int = 0) -> dict[str, Tensor]:
    """Random inputs of plausible scale, the same on every machine; row i does not depend on `rows`.

    Args:
        part: names and shapes.
        rows: B.
        vocabulary: token ids are below this.
        seed: of the first row.
    """
    made = []
    for row in range(rows):
        generator = torch.Generator().manual_seed(seed + row)
        values = {}
        for spec in part.inputs:
            if spec.name == "input_ids":
                values[spec.name] = torch.randint(vocabulary, spec.shape, generator=generator)
            elif spec.name == "timestep":
                values[spec.name] = torch.randint(1000, spec.shape, generator=generator).float()
            elif spec.name == "ip_scale":
                values[spec.name] = torch.rand(spec.shape, generator=generator)
            else:
                values[spec.name] = torch.randn(spec.shape, generator=generator)
        made.append(values)
    return {name: torch.stack([values[name] for values in made]) for name in made[0]}


def examples(
    modules: Mapping[str, Any], parts: Mapping[str, Component], *, rows: int, vocabulary: int
) -> dict[str, dict[str, Tensor]]:
    """Inputs of every component, each `rows` rows, on the CPU; the UNet's conditions are what the encoders give.

    Args:
        modules: from `components.make_modules`.
        parts: component -> Component.
        rows: B.
        vocabulary: token ids are below this.
    """
    made = {name: example_inputs(part, rows=rows, vocabulary=vocabulary) for name, part in parts.items()}
    call = reference(modules)
    made["unet"]["text_embeds"] = call("text_encoder", made["text_encoder"])
    if "image_encoder" in modules:
        made["unet"]["image_embeds"] = call("image_encoder", made["image_encoder"])
    return made


def reference(modules: Mapping[str, Any]) -> Call:
    """Return what runs the modules where they lie, a few rows at once; results are on the CPU."""

    @torch.no_grad()
    def call(name: str, tensors: Mapping[str, Tensor]) -> Tensor:
        module, rows = modules[name], len(next(iter(tensors.values())))
        device = device_of(module)
        outputs = []
        with steady_math():
            for start in range(0, rows, REFERENCE_ROWS):
                piece = {key: value[start : start + REFERENCE_ROWS].to(device) for key, value in tensors.items()}
                outputs.append(module(**piece).cpu())
        return torch.cat(outputs)

    return call


def _measure(name: str, expected: Call, engine: "Engine", inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Errors of one component at batch 1 and at the engine's batch."""
    last = {key: value[-1:] for key, value in inputs.items()}
    got, alone = engine.run(name, inputs), engine.run(name, last)
    batch = str(engine.spec.batch)
    return {
        "1": compare(alone, expected(name, last)),
        batch: compare(got, expected(name, inputs)),
        "row": compare(alone, got[-1:]),
    }


def _draw(call: Call, engine: "Engine") -> Tensor:
    """ROWS small images by DDIM with guidance, (ROWS, 3, H, W) in [-1, 1]; every component through `call`."""
    from diffusers import DDIMScheduler

    parts, vocabulary = engine.spec.components, len(engine.tokenizer)
    inputs = {name: example_inputs(part, rows=2 * ROWS, vocabulary=vocabulary) for name, part in parts.items()}
    conditions = {"text_embeds": call("text_encoder", inputs["text_encoder"]).cpu()}
    conditions["image_embeds"] = inputs["unet"]["image_embeds"]
    if "image_encoder" in parts:
        conditions["image_embeds"] = call("image_encoder", inputs["image_encoder"]).cpu()
    conditions["ip_scale"] = inputs["unet"]["ip_scale"]
    scheduler = DDIMScheduler.from_config(engine.scheduler_config)
    scheduler.set_timesteps(STEPS)
    x = inputs["unet"]["sample"][:ROWS]
    for t in scheduler.timesteps:
        sample, timestep = torch.cat([x, x]), t.expand(2 * ROWS).float()
        noise = call("unet", {"sample": sample, "timestep": timestep, **conditions}).cpu()
        without, with_ = noise.chunk(2)
        x = scheduler.step(without + GUIDANCE * (with_ - without), t, x).prev_sample
    return call("vae_decoder", {"latents": x}).cpu()
