"""Perceptual distances as vectors: stages of a network, unit length in every place, weighted, in one row.

LPIPS (Zhang et al., 2018) compares two images by the outputs a, b of some stages l of a network,

    d = sum_l mean_xy sum_c w_lc (a_lc/|a_l| - b_lc/|b_l|)^2        a, b: (C_l, H_l, W_l)

With a_lc/|a_l| * sqrt(w_lc / (H_l W_l)) in a row of all l, c, x, y this is the squared distance of two vectors.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

EPSILON = 1e-8
"""Under the root of the length, as in torchmetrics: a place where all channels are 0 stays 0."""


def stage_vectors(stages: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Rows whose squared distance is LPIPS' formula.

    Args:
        stages: one output per stage, float32 (B, C_l, H_l, W_l).
        weights: one number >= 0 per channel of each stage, (C_l,).

    Returns:
        float32 (B, D), D the sum of all C_l H_l W_l.
    """
    rows = []
    for stage, weight in zip(stages, weights, strict=True):
        unit = stage / torch.sqrt(EPSILON + stage.square().sum(1, keepdim=True))
        scale = torch.sqrt(weight / (stage.shape[2] * stage.shape[3]))
        rows.append((unit * scale[:, None, None]).flatten(1))
    return torch.cat(rows, 1)


def embedder(
    stages: Callable[[Tensor], Sequence[Tensor]],
    weights: Sequence[Tensor],
    *,
    side: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: str,
) -> "Callable[[Sequence[Image.Image]], np.ndarray]":
    """A function from images to the vectors of `stage_vectors`.

    Args:
        stages: normalised images float32 (B, 3, side, side) -> outputs of the stages.
        weights: as `stage_vectors` takes them, on `device`.
        side: every image is squashed to a square of so many pixels (card, section 2.9), bilinear.
        mean: per channel, subtracted from pixels in 0..1.
        std: per channel, divides them.
        device: where `stages` runs.

    Returns:
        RGB images -> float32 (B, D).
    """
    from PIL import Image

    shift = torch.tensor(mean, device=device)[:, None, None]
    scale = torch.tensor(std, device=device)[:, None, None]

    @torch.inference_mode()
    def embed(images: "Sequence[Image.Image]") -> np.ndarray:
        squares = [np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)) for image in images]
        pixels = torch.from_numpy(np.stack(squares)).to(device).permute(0, 3, 1, 2).float() / 255
        return stage_vectors(stages((pixels - shift) / scale), weights).float().cpu().numpy()

    return embed
