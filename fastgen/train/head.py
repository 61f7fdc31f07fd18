"""The linear head as it is before training, and the prompts that a CLIP starts from."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def new_head(dim: int, n_classes: int, *, seed: int, text: Tensor | None = None) -> nn.Linear:
    """A head as it is before training; depends on the seed and on nothing else.

    Args:
        dim: length D of a feature vector.
        n_classes: number of classes C.
        seed: of torch's default initialisation of weight and bias.
        text: un-normalised text embeddings of the class prompts, float32 (C, D), which become the weight (a
            CLIP head starts as its zero-shot classifier, without the logit scale); None keeps the default.

    Returns:
        Linear(D, C).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(dim, n_classes)
    if text is not None:
        with torch.no_grad():
            head.weight.copy_(text)
    return head


def class_prompts(classes: Sequence[str]) -> list[str]:
    """`a photo of a {class}` for every class, with spaces for underscores."""
    return [f"a photo of a {name.replace('_', ' ')}" for name in classes]
