"""One seed of one arm: choose the images, train a head, test it."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from fastgen.train.backbone import Recipe
from fastgen.train.metrics import Accuracy, accuracy
from fastgen.train.probe import fit_head, new_head, predict
from fastgen.train.sampling import make_mixer, split_images, streams


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Everything the seeds share. R real images come first, S synthetic ones (perhaps none) after them.

    Attributes:
        classes: names, in label order.
        features: of every image in every view, view 0 clean, float32 (R + S, 1 + K, D).
        labels: class of every image, int64 (R + S,).
        parents: real image each synthetic image was made of, int64 (S,), -1 for none.
        test: features (T, D) and labels (T,) of the test images; None holds out half of the real ones.
        text: un-normalised text embeddings that a CLIP head starts from, (C, D), or None.
        recipe: how a head is trained.
        shots: real training images per class; None for all.
        probability: chance of a synthetic image per draw, 0 to 1.
        mix: one of `sampling.MIXES`.
    """

    classes: tuple[str, ...]
    features: np.ndarray
    labels: np.ndarray
    parents: np.ndarray
    test: tuple[np.ndarray, np.ndarray] | None
    text: Tensor | None
    recipe: Recipe
    shots: int | None
    probability: float
    mix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trained head.

    Attributes:
        seed: its seed.
        head: Linear(D, C) after the last step.
        accuracy: on the clean test images.
        loss: mean training loss of the last tenth of the steps.
        train_images: number of real images it could draw.
        test_images: number of test images.
        synthetic_share: share of the draws that were synthetic, 0 to 1.
    """

    seed: int
    head: nn.Linear
    accuracy: Accuracy
    loss: float
    train_images: int
    test_images: int
    synthetic_share: float


def run_trial(problem: Problem, seed: int, *, synthetic: bool) -> Trial:
    """Trains and tests one head.

    Everything random comes from the seed, and nothing of it depends on `synthetic` but the replacement of
    real by synthetic images itself, so that the two arms of a seed are a pair.

    Args:
        problem: data and recipe.
        seed: of split, head and draws.
        synthetic: whether synthetic images are drawn.

    Returns:
        the head and its test accuracy.

    Raises:
        FastgenError: if a class has too few images.
        DataError: if training diverges.
    """
    split_rng, *draw_rngs, view_rng = streams(seed)
    n_real = len(problem.labels) - len(problem.parents)
    labels = problem.labels[:n_real]
    preferred = np.zeros(n_real, bool)
    preferred[problem.parents[problem.parents >= 0]] = True
    split = split_images(
        labels, preferred, split_rng,
        classes=problem.classes, shots=problem.shots, hold_out=problem.test is None,
    )  # fmt: skip
    mixer = make_mixer(
        problem.mix, split.train, labels,
        parents=problem.parents, synthetic_labels=problem.labels[n_real:],
        probability=problem.probability if synthetic else 0.0,
    )  # fmt: skip
    n, n_views = problem.recipe.steps * problem.recipe.batch, problem.features.shape[1]
    rows = mixer.draw(n, draw_rngs)
    views = view_rng.integers(min(1, n_views - 1), n_views, size=n)
    dim = problem.features.shape[2]
    head = new_head(dim, len(problem.classes), seed=seed, text=problem.text)
    loss = fit_head(head, problem.features, problem.labels, rows=rows, views=views, recipe=problem.recipe)
    x, y = problem.test or (problem.features[split.held_out, 0], labels[split.held_out])
    return Trial(
        seed=seed, head=head, loss=loss, train_images=len(split.train), test_images=len(y),
        accuracy=accuracy(y, predict(head, x), len(problem.classes)),
        synthetic_share=float((rows >= n_real).mean()),
    )  # fmt: skip
