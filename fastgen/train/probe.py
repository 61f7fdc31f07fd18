"""The linear head: how it starts, how it is trained, what it predicts."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fastgen.errors import DataError, FastgenError
from fastgen.train.backbone import Recipe


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


def make_optimizer(head: nn.Linear, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam or AdamW with the recipe's constant learning rate.

    Raises:
        FastgenError: if the recipe names another optimizer.
    """
    if recipe.optimizer == "adam":
        return torch.optim.Adam(head.parameters(), lr=recipe.lr)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(head.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    raise FastgenError(f"optimizer is {recipe.optimizer!r}; it must be adam or adamw")


def fit_head(
    head: nn.Linear,
    features: np.ndarray,
    labels: np.ndarray,
    *,
    rows: np.ndarray,
    views: np.ndarray,
    recipe: Recipe,
) -> float:
    """Trains the head in place with cross entropy; the last step counts, nothing is selected.

    Args:
        head: Linear(D, C).
        features: every image in every view, float32 (N, V, D).
        labels: class of every image, int64 (N,).
        rows: image of every draw, int64 (steps * batch,).
        views: view of every draw, int64 (steps * batch,).
        recipe: optimizer, learning rate, steps and batch.

    Returns:
        mean loss of the last tenth of the steps.

    Raises:
        DataError: if the loss is not finite.
    """
    x, y = torch.from_numpy(np.ascontiguousarray(features)), torch.from_numpy(labels)
    optimizer = make_optimizer(head, recipe)
    losses = torch.zeros(recipe.steps)
    draws = torch.from_numpy(rows).split(recipe.batch), torch.from_numpy(views).split(recipe.batch)
    for step, (row, view) in enumerate(zip(*draws, strict=True)):
        loss = functional.cross_entropy(head(x[row, view]), y[row])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses[step] = loss.detach()
    last = float(losses[-max(1, recipe.steps // 10) :].mean())
    if not np.isfinite(last):
        raise DataError(
            f"training loss is {last}; look for NaN among the features, or lower the learning rate"
        )
    return last


@torch.inference_mode()
def predict(head: nn.Linear, features: np.ndarray) -> np.ndarray:
    """Most likely class of every feature vector; features float32 (N, D) -> int64 (N,)."""
    return head(torch.from_numpy(np.ascontiguousarray(features))).argmax(1).numpy()


def class_prompts(classes: Sequence[str]) -> list[str]:
    """`a photo of a {class}` for every class, with spaces for underscores."""
    return [f"a photo of a {name.replace('_', ' ')}" for name in classes]
