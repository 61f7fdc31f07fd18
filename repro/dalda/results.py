"""The results of all arms."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


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
