"""Opens an image file of unknown quality as plain RGB, or says what is wrong with it."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastgen.errors import ReferenceImageError

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Ends of file names, in lower case, that are taken for images in a folder."""

EXIF_ORIENTATION = 0x0112

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that are decoded, whatever the name says; others (PostScript, ...) need other programs."""


def open_picture(path: str | Path) -> "Image.Image":
    """Opens an image as a viewer would show it, in its own size.

    Turned as its EXIF entry says; of an animation the first frame; transparent parts on white; 16 bits per
    channel reduced to 8; CMYK, palette and gray converted.

    Args:
        path: the file.

    Returns:
        A loaded image in mode RGB.

    Raises:
        ReferenceImageError: if there is no such file, it is no image, damaged, cut off, has more than
            `MAX_PIXELS` pixels or floating-point pixels.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise _bad(path, f"{picture.width} x {picture.height} pixels", "give a smaller copy")
            picture.load()
            return _to_rgb(ImageOps.exif_transpose(picture), path)
    except ReferenceImageError:
        raise
    except FileNotFoundError:
        raise ReferenceImageError(f"reference image {path}: there is no such file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _bad(path, "a size that only a decompression bomb has", "give a smaller copy") from None
    except Image.UnidentifiedImageError:
        raise _bad(path, "no image", "convert it, or remove it from the folder") from None
    except Exception as error:  # on damaged data Pillow's decoders raise nearly anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise _bad(path, f"an image that cannot be read ({reason})", "replace it by an undamaged copy") from error


@lru_cache(maxsize=4096)
def picture_size(path: str | Path) -> tuple[int, int] | None:
    """Width and height of the image that `open_picture` gives, from the head of the file; None if there is none."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as picture:
            is_turned = picture.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
            return (picture.height, picture.width) if is_turned else (picture.width, picture.height)
    except Exception:  # on damaged data Pillow's decoders raise nearly anything
        return None


def _bad(path: str | Path, got: str, advice: str) -> ReferenceImageError:
    allowed = f"{', '.join(FORMATS)} of at most {MAX_PIXELS // 1_000_000} megapixels"
    return ReferenceImageError(f"reference image {path}: got {got}; allowed: {allowed}; {advice}")


def _to_rgb(picture: "Image.Image", path: str | Path) -> "Image.Image":
    from PIL import Image

    if picture.mode == "F":
        raise _bad(path, "pixels that are floating-point numbers", "save it with 8 bits per channel")
    if picture.mode.startswith("I"):  # 16 bits per pixel (I;16, I;16B, or I as older Pillows open them)
        return Image.fromarray(_eight_bits(np.asarray(picture), path)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layer).convert("RGB")


def _eight_bits(values: np.ndarray, path: str | Path) -> np.ndarray:
    """The upper 8 of 16 bits; (H, W) integers to uint8."""
    if values.min() < 0 or values.max() > 65535:
        raise _bad(path, "pixels of 32 bits", "save it with 8 bits per channel")
    return (values.astype(np.int64) >> 8).astype(np.uint8)
