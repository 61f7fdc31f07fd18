"""Pictures as the UNet sees them: fitted to the model's size, flipped, and encoded by the VAE.

Where nothing is cut by chance, every picture is encoded once; the posterior's mean and log variance are kept, and each
step draws from them, as it would from a fresh encoding. A random flip keeps two of them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from fastgen.finetune.batches import Batches
from fastgen.finetune.examples import Example

FITS = ("crop", "squash")
"""`crop`: shorter side to the model's size (bilinear), then a random square, as DataDream; `squash`: both sides to
the model's size (bicubic), as DA-Fusion."""

AT_ONCE = 8
"""Pictures that are encoded together when they are kept."""

Crop = tuple[float, float]
"""Where a random crop lies, from 0 (left, top) to 1 (right, bottom)."""


def read_picture(example: Example) -> Image.Image:
    """Read a picture as RGB, turned as its EXIF tag says, transparent parts on white."""
    with Image.open(example.path) as image:
        upright = ImageOps.exif_transpose(image)
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    layer = upright.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def fit_picture(image: Image.Image, size: int, *, fit: str, crop: Crop = (0.5, 0.5)) -> Tensor:
    """Bring a picture to the model's size.

    Args:
        image: RGB.
        size: side in pixels.
        fit: one of `FITS`.
        crop: place of the square.

    Returns:
        float32 (3, size, size) in [-1, 1].
    """
    if fit == "squash":
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    else:
        image = transforms.resize(image, size, InterpolationMode.BILINEAR)
        free = image.width - size, image.height - size
        left, top = (min(int(at * (space + 1)), space) for at, space in zip(crop, free, strict=True))
        image = image.crop((left, top, left + size, top + size))
    return transforms.to_tensor(image) * 2 - 1


def is_fixed(examples: Sequence[Example], size: int, *, fit: str) -> bool:
    """Whether no picture is cut by chance."""
    return fit == "squash" or all(_is_square(example, size) for example in examples)


def _is_square(example: Example, size: int) -> bool:
    with Image.open(example.path) as image:
        short, long = sorted(image.size)
    return int(size * long / short) == size


class Latents:
    """The encoded pictures of a fine-tuning.

    Attributes:
        cached: whether every picture was encoded once for all.
        shape: of a row's latents, (C, h, w).
    """

    def __init__(
        self, vae: Any, examples: Sequence[Example], *, size: int, fit: str, flip: bool, device: torch.device
    ) -> None:
        """Encode all pictures if that can be done once.

        Args:
            vae: diffusers AutoencoderKL, float32 on `device`.
            examples: the pictures, N of them.
            size: side in pixels.
            fit: one of `FITS`.
            flip: mirror half of the pictures that are drawn.
            device: where the latents are needed.
        """
        self.vae, self.examples, self.size, self.fit, self.flip, self.device = vae, examples, size, fit, flip, device
        self.cached = is_fixed(examples, size, fit=fit)
        self._moments: Tensor | None = None
        if self.cached:
            views = [(i, flipped) for flipped in ((False, True) if flip else (False,)) for i in range(len(examples))]
            parts = [self._encode(views[k : k + AT_ONCE]) for k in range(0, len(views), AT_ONCE)]
            self._moments = torch.cat(parts)
            moments = self._moments
        else:
            moments = self._encode([(0, False)])
        self.shape = (moments.shape[1] // 2, *moments.shape[2:])

    def draw(self, batches: Batches, step: int, rows: slice, posterior: Tensor) -> Tensor:
        """Latents of some rows of a step, scaled as the UNet knows them, float32 (B, C, h, w) on the device.

        Args:
            batches: say which pictures, flips and crops the step has.
            step: its number.
            rows: which rows of the step.
            posterior: noise of the posterior for these rows, (B, C, h, w).
        """
        indices = batches.indices(step)
        flips = batches.stream("flip", step).random(len(indices)) < 0.5 if self.flip else np.zeros(len(indices), bool)
        if self._moments is not None:
            moments = self._moments[(indices + len(self.examples) * flips)[rows]]
        else:
            crops = batches.stream("crop", step).random((len(indices), 2))
            views = list(zip(indices.tolist(), flips.tolist(), strict=True))[rows]
            moments = self._encode(views, [tuple(at) for at in crops[rows].tolist()])
        mean, log_variance = moments.chunk(2, 1)
        spread = (0.5 * log_variance.clamp(-30, 20)).exp()
        return (mean + spread * posterior.to(self.device)) * self.vae.config.scaling_factor

    @torch.no_grad()
    def _encode(self, views: Sequence[tuple[int, bool]], crops: Sequence[Crop] | None = None) -> Tensor:
        """Mean and log variance of some pictures, (B, 2C, h, w)."""
        pixels = []
        for number, (index, flipped) in enumerate(views):
            crop = crops[number] if crops else (0.5, 0.5)
            picture = fit_picture(read_picture(self.examples[index]), self.size, fit=self.fit, crop=crop)
            pixels.append(picture.flip(-1) if flipped else picture)
        with torch.autocast(self.device.type, enabled=False):  # Stable Diffusion's VAE overflows in fp16
            return self.vae._encode(torch.stack(pixels).to(self.device)).float()
