"""Means with 95 % bootstrap intervals."""

from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """As an object."""
        return {"mean": self.mean, "low": self.low, "high": self.high}

    def text(self, digits: int, *, signed: bool = False, factor: float = 1.0) -> str:
        """`mean [low, high]`, all times a factor (100 for per cent)."""
        sign = "+" if signed else ""
        mean, low, high = (f"{value * factor:{sign}.{digits}f}" for value in (self.mean, self.low, self.high))
        return f"{mean} [{low}, {high}]"


def bootstrap(values: np.ndarray, *, seed: int = 0) -> Interval:
    """Percentile interval of the mean over seeds and classes.

    Seeds are drawn with replacement, and within each drawn seed its classes: classes of a seed share what the seed
    decided, so that taking all (seed, class) pairs for independent would promise too much.

    Args:
        values: one number per seed and class, float (S, C), NaN where there is none; a column of one class for
            numbers that are one per seed.
        seed: of the resampling.

    Returns:
        mean over classes, then over seeds, with the interval.
    """
    rng = np.random.default_rng(seed)
    n_seeds, n_classes = values.shape
    seeds = rng.integers(n_seeds, size=(RESAMPLES, n_seeds, 1))
    classes = rng.integers(n_classes, size=(RESAMPLES, n_seeds, n_classes))
    means = np.nanmean(np.nanmean(values[seeds, classes], axis=2), axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(np.nanmean(np.nanmean(values, axis=1))), float(low), float(high))
