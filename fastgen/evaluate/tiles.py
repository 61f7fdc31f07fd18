"""Small pictures and legible text on a PIL canvas; shared by the contact sheet and the lambda strip."""

from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

INK, SOFT, LINE, PAPER = (28, 30, 33), (104, 109, 117), (221, 224, 228), (255, 255, 255)
"""Colours: text, secondary text, frames, background."""


@cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans as matplotlib ships it (it has Greek letters); Pillow's own font where that is missing.

    Args:
        size: height in pixels.
        bold: whether it is the bold one.
    """
    try:
        import matplotlib

        name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
        return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)
    except (ImportError, OSError):
        return ImageFont.load_default(size)


def tile(image: Image.Image, side: int) -> Image.Image:
    """The image inside a white square of `side` pixels, as large as it fits, its shape kept."""
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    square = Image.new("RGB", (side, side), PAPER)
    square.paste(
        image.convert("RGB").resize(size, Image.Resampling.BICUBIC),
        ((side - size[0]) // 2, (side - size[1]) // 2),
    )
    return square


def empty_tile(side: int, text: str) -> Image.Image:
    """A light square with a word in it, where there is no image."""
    square = Image.new("RGB", (side, side), (245, 246, 248))
    draw = ImageDraw.Draw(square)
    draw.rectangle((0, 0, side - 1, side - 1), outline=LINE)
    draw.multiline_text(
        (side / 2, side / 2), "\n".join(wrap(text, side - 16, font(12))), SOFT, font(12), "mm", align="center"
    )
    return square


def wrap(
    text: str,
    width: int,
    typeface: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    *,
    lines: int | None = None,
) -> list[str]:
    """Breaks text into lines that fit.

    Args:
        text: any text; runs of white space count as one space.
        width: of a line, in pixels.
        typeface: that it will be drawn with.
        lines: most lines to return; the last one then ends in an ellipsis. None for all.

    Returns:
        lines; a word that is wider than a line is broken.
    """
    done: list[str] = []
    for word in text.split():
        if done and typeface.getlength(f"{done[-1]} {word}") <= width:
            done[-1] = f"{done[-1]} {word}"
            continue
        while typeface.getlength(word) > width and len(word) > 1:
            fits = next(
                n for n in range(len(word) - 1, 0, -1) if n == 1 or typeface.getlength(word[:n]) <= width
            )
            done.append(word[:fits])
            word = word[fits:]
        done.append(word)
    if lines is not None and len(done) > lines:
        last = done[lines - 1]
        while last and typeface.getlength(last + "…") > width:
            last = last[:-1]
        done = [*done[: lines - 1], last.rstrip(" ,.;") + "…"]
    return done
