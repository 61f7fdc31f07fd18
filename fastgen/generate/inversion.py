"""Start latents of mode `latent`: references turned back into noise, and points on the circle through two of them.

This is Diff-II's way to make new images of a class from pairs of real ones: each is inverted with DDIM under its own
prompt and without guidance, and the start of a new image is a point on the circle on which both lie.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from fastgen.generate.denoise import Conditions, denoise
from fastgen.generate.schedulers import INVERSE, Schedule
from fastgen.records import Ref, Row
from fastgen.seeds import stream

if TYPE_CHECKING:
    from fastgen.engine.load import Engine

PARALLEL = 1e-4
"""Two latents whose angle is smaller (radians) are one point: there is no circle through them."""


class Inversion(NamedTuple):
    """What an inverted reference depends on."""

    ref: Ref
    prompt: str
    steps: int


def inversions_of(row: Row) -> tuple[Inversion, ...]:
    """The two inversions a row of mode latent starts from; none for other rows.

    The prompt is the one that the row ends with: it describes the class, `prompt` may add a new setting to it.
    """
    if row.mode != "latent" or row.init is None:
        return ()
    prompt = row.prompt if row.prompt_late is None else row.prompt_late
    return tuple(Inversion(Ref(id=name), prompt, row.init.inv_steps) for name in row.init.refs)


def invert(engine: "Engine", moments: Tensor, text: Tensor, *, steps: int) -> Tensor:
    """Run DDIM backwards from images to the noise that they would come from.

    Args:
        engine: a loaded engine.
        moments: mean and log variance of the VAE's posterior, float32 (B, 2C, h, w); the mean is taken.
        text: prompts of the images, float32 (B, 77, D); there is no guidance.
        steps: 1 to the scheduler's training steps.

    Returns:
        Latents at the last timestep, float32 (B, C, h, w).
    """
    clean = moments.chunk(2, dim=1)[0] * engine.spec.scaling_factor
    nothing = engine.uncond_image_embeds.expand(len(clean), *engine.uncond_image_embeds.shape[1:])
    conditions = Conditions(text=text, image=nothing, ip_scale=torch.zeros(len(clean), device=clean.device))
    schedule = Schedule(INVERSE, engine.scheduler_config, steps=steps)
    return denoise(engine.unet, clean, schedule, conditions=conditions, generators=[])


def start_latent(row: Row, first: Tensor, second: Tensor) -> Tensor:
    """The row's point on the circle through two inverted references.

    Args:
        row: of mode latent; without `init.alpha` the point is drawn from the row's seed, uniformly on the circle.
        first: (C, h, w).
        second: (C, h, w).
    """
    assert row.init is not None
    turn = None if row.init.alpha is not None else stream(row.seed or 0, "circle").random()
    return on_circle(first, second, alpha=row.init.alpha, turn=turn)


def on_circle(first: Tensor, second: Tensor, *, alpha: float | None, turn: float | None = None) -> Tensor:
    """sin((1 + a) theta) / sin(theta) first - sin(a theta) / sin(theta) second, theta the angle between both.

    a = 0 gives `first` and a = -1 gives `second`; between them lies the slerp, beyond them the rest of the circle.

    Args:
        first: any shape.
        second: the same shape.
        alpha: a, or None.
        turn: without alpha: the share of the full circle to go from `first`, 0 to 1; a = 2 pi turn / theta.

    Returns:
        The point; `first` when both lie in one direction.
    """
    cosine = torch.nn.functional.cosine_similarity(first.double().flatten(), second.double().flatten(), dim=0)
    theta = math.acos(max(-1.0, min(1.0, float(cosine))))
    if theta < PARALLEL or math.pi - theta < PARALLEL:
        return first
    a = 2 * math.pi * (turn or 0.0) / theta if alpha is None else alpha
    return (math.sin((1 + a) * theta) * first - math.sin(a * theta) * second) / math.sin(theta)
