"""One reference and what becomes of it as lambda grows: a row of pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from fastgen.evaluate.tiles import INK, LINE, PAPER, SOFT, font, tile, wrap

SIDE, GAP, MARGIN = 176, 12, 28


@dataclass(frozen=True, slots=True, kw_only=True)
class LambdaStrip:
    """Images that differ in lambda only.

    Attributes:
        reference: RGB.
        prompt: the same for all.
        lambdas: one per image.
        images: RGB, same order.
    """

    reference: Image.Image
    prompt: str
    lambdas: Sequence[float]
    images: Sequence[Image.Image]


def lambda_strips(strips: Sequence[LambdaStrip]) -> Image.Image:
    """Draws the strips below each other: reference, a gap, then the images with their lambda.

    Args:
        strips: at least one.

    Returns:
        RGB.

    Raises:
        ValueError: if there is no strip, or a strip has not one lambda per image.
    """
    if not strips:
        raise ValueError("need at least one strip")
    for strip in strips:
        if len(strip.lambdas) != len(strip.images) or not strip.images:
            raise ValueError(
                f"got {len(strip.lambdas)} lambdas for {len(strip.images)} images; need as many, not 0"
            )
    most = max(len(strip.images) for strip in strips)
    height = 30 + SIDE + 34
    size = (2 * MARGIN + (most + 1) * (SIDE + GAP) + GAP, MARGIN + len(strips) * height)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, strip in enumerate(strips):
        y = MARGIN + number * height
        for line in wrap(strip.prompt, size[0] - 2 * MARGIN, font(14), lines=1):
            draw.text((MARGIN, y), line, INK, font(14))
        _picture(sheet, draw, strip.reference, (MARGIN, y + 30), "reference")
        for place, (lambda_, image) in enumerate(zip(strip.lambdas, strip.images, strict=True)):
            x = MARGIN + (place + 1) * (SIDE + GAP) + GAP
            _picture(sheet, draw, image, (x, y + 30), f"λ = {lambda_:g}")
    return sheet


def _picture(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, image: Image.Image, at: tuple[int, int], label: str
) -> None:
    x, y = at
    sheet.paste(tile(image, SIDE), at)
    draw.rectangle((x - 1, y - 1, x + SIDE, y + SIDE), outline=LINE)
    draw.text((x + SIDE / 2, y + SIDE + 13), label, SOFT, font(13), "mm")
