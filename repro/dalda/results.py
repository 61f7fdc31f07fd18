"""The results of all arms, and paired differences with bootstrap intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


class Results:
    """What `produce` returned, for every arm, world and seed."""

    def __init__(self, results: Sequence[Mapping[str, Any]]) -> None:
        self._by_key = {(r["world"], r["arm"], r["seed"]): r for r in results}
        self.seeds = tuple(sorted({r["seed"] for r in results}))
        self.images = sum(r["images"] for r in results)

    def has(self, world: str, arm: str) -> bool:
        """Whether an arm was made in a world."""
        return all((world, arm, seed) in self._by_key for seed in self.seeds)

    def of(self, world: str, arm: str) -> list[Mapping[str, Any]]:
        """Results of an arm, seed by seed."""
        return [self._by_key[world, arm, seed] for seed in self.seeds]

    def metric(self, world: str, arm: str, name: str) -> np.ndarray:
        """A diversity metric per seed and class, (S, C)."""
        per_class = [r["metrics"][name]["per_class"].values() for r in self.of(world, arm)]
        return np.array([[np.nan if v is None else v for v in values] for values in per_class], np.float64)

    def scores(self, world: str) -> np.ndarray:
        """CLIP score of the reference per seed and class, (S, C)."""
        return np.array([list(r["scores"].values()) for r in self.of(world, "llm-ags")], np.float64)

    def accuracy(self, world: str, arm: str, which: str = "real+synthetic") -> np.ndarray:
        """Macro accuracy per seed, 0 to 1, NaN where nothing was trained, (S, 1)."""
        return np.array([[np.mean(r["accuracy"].get(which, np.nan))] for r in self.of(world, arm)])

    def lambdas(self, world: str, arm: str) -> np.ndarray:
        """Score, mu, sigma, lambda of all rows of all seeds, (N, 4)."""
        return np.concatenate([np.array(r["lambdas"]) for r in self.of(world, arm)])
