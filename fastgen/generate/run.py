"""Rows in, samples out: encode, batch, denoise, decode; knows no file format."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fastgen.generate.batch import Group, batches
from fastgen.generate.denoise import Conditions, denoise, start_noise
from fastgen.generate.encode import Encoder, LoadReference, needs_tokens
from fastgen.generate.inversion import start_latent
from fastgen.generate.schedulers import Schedule
from fastgen.records import Row
from fastgen.shards.schema import FLAT, GOOD, NON_FINITE, REFERENCE_FAILED, Sample

if TYPE_CHECKING:
    from fastgen.engine.load import Engine

WINDOW = 512
"""Rows that are looked at together to fill batches and encoder batches."""

FLAT_RANGE = 1
"""An image is flat when no channel spans more grey levels than this."""


def generate(
    rows: Iterable[Row],
    engine: "Engine",
    references: LoadReference | Encoder,
    *,
    batch: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Sample]:
    """Generate one sample per row, in the order in which batches are full (rows of a group keep their order).

    The image of a row depends on the row and the engine only: no row sees another, and the engine runs every call in
    pieces of its own size, a short one filled up.

    Args:
        rows: complete rows (see `batch.complete_row`) with different ids; streamed.
        engine: a loaded engine.
        references: gives the RGB image of a row's reference (raises ReferenceImageError), or an Encoder made
            of that, which keeps encoded prompts and references between calls.
        batch: rows that are denoised together; None takes the engine's. Rows with guidance count twice inside
            the engine, so half of its batch is as fast and stops sooner after a signal.
        should_stop: asked between batches; the generator ends early when it says so.

    Yields:
        A Sample for every row; a failed row has a status and a reason.
    """
    encoder = references if isinstance(references, Encoder) else Encoder(engine, references)
    size = batch or engine.spec.batch
    remaining = iter(rows)
    while window := list(islice(remaining, WINDOW)):
        failed = encoder.prepare(window)
        for row in window:
            if row.id in failed:
                yield Sample(row=row, image=None, status=REFERENCE_FAILED, reason=failed[row.id])
        for group, members in batches([row for row in window if row.id not in failed], size):
            if should_stop():
                return
            with engine.undisturbed():
                samples = make_batch(group, members, engine, encoder=encoder)
            yield from samples


@torch.inference_mode()
def make_batch(group: Group, rows: Sequence[Row], engine: "Engine", *, encoder: Encoder) -> list[Sample]:
    """Generate the rows of one group in one go.

    Args:
        group: what the rows have in common.
        rows: complete rows.
        engine: a loaded engine.
        encoder: gives texts, image tokens and start images.

    Returns:
        One sample per row.
    """
    schedule = Schedule(
        group.scheduler,
        engine.scheduler_config,
        steps=group.steps,
        strength=rows[0].strength if group.mode == "img2img" else None,
    )
    generators = [torch.Generator("cpu").manual_seed(row.seed or 0) for row in rows]
    latents = _start(rows, engine, encoder, schedule=schedule, generators=generators)
    conditions = _conditions(group, rows, engine, encoder=encoder)
    latents = denoise(engine.unet, latents, schedule, conditions=conditions, generators=generators)
    decoded = _decode(engine, latents)
    finite = {"unet": is_finite(latents), "vae_decoder": is_finite(decoded)}
    broken = [next((stage for stage, good in finite.items() if not good[i]), None) for i in range(len(rows))]
    images = to_uint8(decoded).cpu().numpy()
    return [_sample(row, image, stage) for row, image, stage in zip(rows, images, broken, strict=True)]


def is_finite(tensor: Tensor) -> list[bool]:
    """For every row, whether it holds neither NaN nor infinity."""
    return torch.isfinite(tensor).flatten(1).all(1).tolist()


def _decode(engine: "Engine", latents: Tensor) -> Tensor:
    """Images (B, 3, H, W); what half precision could not decode, in float32."""
    decoded = engine.decode(latents).float()
    bad = [i for i, good in enumerate(is_finite(decoded)) if not good or _is_flat(to_uint8(decoded[i : i + 1])[0])]
    if bad:
        again = engine.decode_exactly(latents[bad])
        if again is not None:
            decoded[bad] = again.float()
    return decoded


def to_uint8(decoded: Tensor) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> uint8 (B, H, W, 3), with the rounding of diffusers; NaN becomes 0."""
    unit = (decoded / 2 + 0.5).clamp(0, 1).nan_to_num(0)
    return (unit * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _start(
    rows: Sequence[Row],
    engine: "Engine",
    encoder: Encoder,
    *,
    schedule: Schedule,
    generators: list[torch.Generator],
) -> Tensor:
    """Latents before the first step: noise, for img2img the noised start image, for latent a point between images."""
    shape = engine.spec.latent_shape
    if rows[0].mode == "latent":
        points = [start_latent(row, *encoder.inverted(row)) for row in rows]
        return torch.stack(points).to(engine.device) * schedule.start_scale
    if rows[0].mode != "img2img":
        return start_noise(generators, shape).to(engine.device) * schedule.start_scale
    mean, log_variance = encoder.moments([row.ref for row in rows if row.ref is not None]).chunk(2, dim=1)
    drawn = start_noise(generators, shape).to(engine.device)  # first the posterior, then the noise, as in diffusers
    clean = (mean + (0.5 * log_variance.clamp(-30, 20)).exp() * drawn) * engine.spec.scaling_factor
    return schedule.add_noise(clean, start_noise(generators, shape).to(engine.device))


def _conditions(group: Group, rows: Sequence[Row], engine: "Engine", *, encoder: Encoder) -> Conditions:
    """Text, image tokens, lambda and guidance of every row as tensors."""

    def numbers(values: Iterable[float]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.float32, device=engine.device)

    scale = [row.lambda_ if isinstance(row.lambda_, float | int) else 0.0 for row in rows]
    late = any(row.prompt_late is not None for row in rows)
    return Conditions(
        text=encoder.texts([row.prompt for row in rows]),
        image=encoder.image_tokens([row.ref if needs_tokens(row) else None for row in rows]),
        ip_scale=numbers(scale),
        guidance=numbers(row.guidance_scale or 0.0 for row in rows) if group.guided else None,
        interval=group.interval or (0.0, 1.0),
        negative_text=encoder.texts([row.negative_prompt or "" for row in rows]) if group.guided else None,
        no_image=engine.uncond_image_embeds if group.guided else None,
        late_text=encoder.texts([row.prompt_late or row.prompt for row in rows]) if late else None,
        switch=numbers(1.0 if row.switch is None else row.switch for row in rows) if late else None,
    )


def _is_flat(image: Tensor) -> bool:
    """Whether an image, uint8 (H, W, 3), is of one colour."""
    channels = image.reshape(-1, 3).int()
    return bool((channels.amax(0) - channels.amin(0) <= FLAT_RANGE).all())


def _sample(row: Row, image: np.ndarray, broken: str | None) -> Sample:
    """Judge one image, uint8 (H, W, 3); `broken` names the component that gave NaN or infinity."""
    if broken is not None:
        remedy = "build one of higher precision (--precision fp32)"
        return Sample(row=row, image=None, status=NON_FINITE, reason=f"{broken} gave NaN or infinity; {remedy}")
    if _is_flat(torch.from_numpy(image)):
        colour = ", ".join(str(int(value)) for value in image[0, 0])
        return Sample(row=row, image=image, status=FLAT, reason=f"the whole image is one colour ({colour})")
    return Sample(row=row, image=image, status=GOOD)
