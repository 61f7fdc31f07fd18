"""Accuracy from predictions, and the spread of a number over training seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracy on a test set.

    Attributes:
        macro: mean of the classes' recalls, 0 to 1; a class without test images is left out.
        micro: share of all test images that are right, 0 to 1.
        per_class: recall of each class, 0 to 1, NaN for a class without test images; one entry per class.
    """

    macro: float
    micro: float
    per_class: tuple[float, ...]


def accuracy(labels: np.ndarray, predictions: np.ndarray, n_classes: int) -> Accuracy:
    """Compares predicted with true classes.

    Args:
        labels: true class of every test image, integers (N,), N > 0.
        predictions: predicted class of every test image, integers (N,).
        n_classes: number of classes; all labels lie in 0..n_classes-1.

    Returns:
        macro, micro and per-class accuracy.

    Raises:
        ValueError: if there are no labels, or the two shapes differ.
    """
    if labels.shape != predictions.shape or labels.size == 0:
        raise ValueError(f"got {labels.shape} labels and {predictions.shape} predictions; need equal, not 0")
    right = labels == predictions
    support = np.bincount(labels, minlength=n_classes)
    hits = np.bincount(labels[right], minlength=n_classes)
    recall = np.full(n_classes, np.nan)
    np.divide(hits, support, out=recall, where=support > 0)
    return Accuracy(
        macro=float(np.nanmean(recall)), micro=float(right.mean()), per_class=tuple(recall.tolist())
    )


RESAMPLED = 6400
"""Images that DALDA's code draws for an evaluation."""


def resampled_accuracy(
    labels: np.ndarray, predictions: np.ndarray, n_classes: int, rng: np.random.Generator
) -> Accuracy:
    """Accuracy as DALDA's code measures it: on 6400 test images drawn with replacement.

    A class that was not drawn counts as 0 in the macro accuracy. The draw alone moves it by about half a point.

    Args:
        labels: as `accuracy`.
        predictions: as `accuracy`.
        n_classes: as `accuracy`.
        rng: draws the images.
    """
    drawn = rng.integers(len(labels), size=RESAMPLED)
    found = accuracy(labels[drawn], predictions[drawn], n_classes)
    return replace(found, macro=float(np.nan_to_num(found.per_class).mean()))


def grouped_accuracy(
    per_class: Sequence[float], counts: Sequence[int], *, many: int, few: int
) -> dict[str, dict[str, float | int | None]]:
    """Accuracy over the classes with many, medium and few real training images (long tail).

    Args:
        per_class: recall of each class, NaN for a class without test images.
        counts: real training images of each class.
        many: a class with more images has many.
        few: a class with fewer images has few; all others are medium.

    Returns:
        "many", "medium", "few" -> `accuracy` (mean recall; None for an empty group) and `classes` (their number).
    """
    recall, n = np.asarray(per_class, np.float64), np.asarray(counts)
    groups = {"many": n > many, "medium": (n <= many) & (n >= few), "few": n < few}
    found: dict[str, dict[str, float | int | None]] = {}
    for name, members in groups.items():
        known = recall[members & ~np.isnan(recall)]
        found[name] = {"accuracy": float(known.mean()) if len(known) else None, "classes": int(members.sum())}
    return found


def spread(values: Sequence[float]) -> dict[str, object]:
    """Mean, standard deviation and 95 % t-interval of the mean of one number over seeds.

    The interval covers what the seeds vary (few-shot choice, initial head, order of images). It says nothing
    about the choice of the test images where the test set is the same for all seeds.

    Args:
        values: one number per seed.

    Returns:
        `{"mean", "std", "ci95": [low, high], "n"}`; `std` (n - 1 in the denominator) and `ci95` are None for
        a single value.
    """
    x = np.asarray(values, np.float64)
    mean = float(x.mean())
    if x.size < 2:
        return {"mean": mean, "std": None, "ci95": None, "n": int(x.size)}
    std = float(x.std(ddof=1))
    half = float(stats.t.ppf(0.975, x.size - 1)) * std / x.size**0.5
    return {"mean": mean, "std": std, "ci95": [mean - half, mean + half], "n": int(x.size)}


def paired_difference(before: Sequence[float], after: Sequence[float]) -> dict[str, object]:
    """`spread` of after - before over seeds, value by value.

    Args:
        before: one number per seed.
        after: one number per seed, same seeds in the same order.

    Returns:
        as `spread`, with the differences themselves under `per_seed`.

    Raises:
        ValueError: if the lengths differ.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} values cannot be paired with {len(after)}")
    per_seed = [b - a for a, b in zip(before, after, strict=True)]
    return {"per_seed": per_seed, **spread(per_seed)}
