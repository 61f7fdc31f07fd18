"""What a batch should be: targets (hard or soft), CutMix and MixUp inside its parts, and weights of its images."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fastgen.train.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Targets:
    """The class, or the distribution over classes, of every image.

    Attributes:
        labels: class of every image, int64 (N,).
        n_classes: number C of classes.
        soft: image -> distribution over the classes, float (C,), for images that have one (Diff-Mix). It is
            taken as it is; its sum may be below 1.
    """

    labels: np.ndarray
    n_classes: int
    soft: Mapping[int, np.ndarray] = field(default_factory=dict)

    def of(self, rows: np.ndarray) -> Tensor:
        """Targets of these images: int64 (B,), or float32 (B, C) if any image of the set has soft ones."""
        hard = torch.from_numpy(self.labels[rows])
        if not self.soft:
            return hard
        target = functional.one_hot(hard, self.n_classes).float()
        for place, row in enumerate(rows.tolist()):
            if row in self.soft:
                target[place] = torch.as_tensor(self.soft[row], dtype=torch.float32)
        return target


def mix_parts(x: Tensor, target: Tensor, is_real: Tensor, *, n_classes: int, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """With probability `mix_p` applies CutMix or MixUp inside the real and inside the synthetic part.

    One coin and one choice for the batch, as in DataDream's code; each part draws its own share. No real image
    is ever mixed with a synthetic one.

    Args:
        x: images float (B, 3, S, S).
        target: int64 (B,) or float (B, C).
        is_real: bool (B,).
        n_classes: number C of classes.
        recipe: `mix_p`, and the alphas `cutmix` and `mixup`.

    Returns:
        images, and targets float (B, C); as they came if the coin said no.
    """
    from torchvision.transforms import v2

    if not recipe.mix_p or float(torch.rand(())) >= recipe.mix_p:
        return x, target
    kinds = [(v2.CutMix, recipe.cutmix), (v2.MixUp, recipe.mixup)]
    allowed = [kind(alpha=alpha, num_classes=n_classes) for kind, alpha in kinds if alpha]
    mix = allowed[int(torch.randint(len(allowed), ()))]
    soft = target.float() if target.ndim == 2 else functional.one_hot(target, n_classes).float()
    x = x.clone()
    for part in (is_real.nonzero()[:, 0], (~is_real).nonzero()[:, 0]):
        if len(part) > 1:
            x[part], soft[part] = mix(x[part], soft[part])
    return x, soft


def image_weights(is_real: np.ndarray, real_weight: float | None) -> np.ndarray:
    """The weight of every image in L = w * CE(real) + (1 - w) * CE(synthetic), each CE a mean over its part.

    Args:
        is_real: bool (B,).
        real_weight: w, or None for the plain mean over the batch.

    Returns:
        float64 (B,). A batch without real (or without synthetic) images lacks that term: nothing is divided by 0.
    """
    n, n_real = len(is_real), int(is_real.sum())
    if real_weight is None:
        return np.full(n, 1.0 / n)
    real, synthetic = real_weight / max(1, n_real), (1.0 - real_weight) / max(1, n - n_real)
    return np.where(is_real, real, synthetic)


def weighted_loss(logits: Tensor, target: Tensor, weights: Tensor | None, *, smoothing: float) -> Tensor:
    """Cross entropy of every image times its weight, summed; without weights the mean.

    Args:
        logits: (B, C).
        target: int64 (B,) or float (B, C).
        weights: (B,), or None.
        smoothing: label smoothing, 0 to 1.
    """
    if weights is None:
        return functional.cross_entropy(logits, target, label_smoothing=smoothing)
    each = functional.cross_entropy(logits, target, label_smoothing=smoothing, reduction="none")
    return (each * weights).sum()
