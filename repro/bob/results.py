"""The results of all arms."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class Results:
    """What `produce` and `real_alone` returned, for every arm and seed."""

    def __init__(self, results: Sequence[Mapping[str, Any]]) -> None:
        self._by_key = {(r["arm"], r["seed"]): r for r in results}
        self.seeds = tuple(sorted({r["seed"] for r in results}))
        self.images = sum(r["images"] for r in results)

    def has(self, arm: str) -> bool:
        """Whether an arm was made with all seeds."""
        return all((arm, seed) in self._by_key for seed in self.seeds)

    def accuracy(self, arm: str, which: str = "real+synthetic", group: str = "macro") -> np.ndarray:
        """Accuracy per seed, 0 to 1, (S, 1); of `real` or `real+synthetic`; `macro`, or of many, medium or few."""
        return np.array([[r["accuracy"][which][group]] for r in self._of(arm)])

    def information(self, arm: str, attribute: str) -> np.ndarray:
        """Mutual information of class and a shown attribute in nats, less what chance alone gives, (S, 1)."""
        return np.array([[r["context"][attribute]["information"]] for r in self._of(arm)])

    def right(self, arm: str, attribute: str) -> np.ndarray:
        """Share of the images that show what they were asked to, (S, 1); NaN where nothing was asked."""
        values = [[r["context"][attribute]["right"]] for r in self._of(arm)]
        return np.array(values, dtype=np.float64)

    def probe(self, arm: str, attribute: str) -> float:
        """How often the context probe is right on real pictures that it has not seen, 0 to 1."""
        return float(np.mean([r["context"][attribute]["probe"] for r in self._of(arm)]))

    def fid(self, arm: str) -> np.ndarray:
        """FID per seed and class, (S, C)."""
        return np.array([list(r["fid"].values()) for r in self._of(arm)], np.float64)

    def _of(self, arm: str) -> list[Mapping[str, Any]]:
        return [self._by_key[arm, seed] for seed in self.seeds]
