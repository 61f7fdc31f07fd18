"""Pictures that the model draws while it learns: one grid, the same prompts and start noise every time."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from fastgen.evaluate.tiles import PAPER, SOFT, font, wrap
from fastgen.files import atomic_write_bytes
from fastgen.finetune.parts import Parts

SIDE, GAP, TEXT = 160, 8, 34
STEPS = 25


@torch.no_grad()
def draw_samples(
    path: Path, parts: Parts, prompts: Sequence[str], *, device: torch.device, guidance: float, seed: int = 0
) -> Path:
    """Draw one picture per prompt with diffusers' own pipeline, and write them as a grid.

    Args:
        path: the PNG.
        parts: the model as it is now.
        prompts: one per picture; picture i starts from the noise of seed + i.
        device: of the model.
        guidance: guidance scale.
        seed: of the first picture.
    """
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=parts.unet,
        scheduler=DDIMScheduler.from_config(parts.scheduler.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    images: list[Image.Image] = []
    for start in range(0, len(prompts), 4):
        some = list(prompts[start : start + 4])
        generators = [torch.Generator("cpu").manual_seed(seed + start + i) for i in range(len(some))]
        made: Any = pipeline(
            some, num_inference_steps=STEPS, guidance_scale=guidance, generator=generators,
            height=parts.size, width=parts.size,
        )  # fmt: skip
        images += made.images
    data = io.BytesIO()
    grid(images, prompts).save(data, "PNG")
    return atomic_write_bytes(path, data.getvalue())


def grid(images: Sequence[Image.Image], captions: Sequence[str], *, columns: int = 6) -> Image.Image:
    """Lay pictures out in rows, each with the beginning of its caption below."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    cell = SIDE + GAP, SIDE + TEXT + GAP
    sheet = Image.new("RGB", (columns * cell[0] + GAP, rows * cell[1] + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(number, columns)
        x, y = GAP + column * cell[0], GAP + row * cell[1]
        sheet.paste(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), (x, y))
        text = "\n".join(wrap(caption, SIDE, font(11), lines=2))
        draw.multiline_text((x, y + SIDE + 2), text, SOFT, font(11), spacing=2)
    return sheet
