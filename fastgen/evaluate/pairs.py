"""Means over pairs of images from sums of their vectors, without forming a pair.

    unordered pairs of one set:   mean f_i.f_j = (|sum f|^2 - sum |f|^2) / (n (n - 1))
    pairs of two sets:            mean f_i.g_j = (sum f / n).(sum g / m)
    and always                    |f - g|^2    = |f|^2 + |g|^2 - 2 f.g

so a class of n images costs n vectors of work, and LPIPS needs no sample of its n (n - 1) / 2 pairs.
"""

from dataclasses import dataclass, field

import numpy as np

SIMILARITY, DISTANCE = "similarity", "distance"
"""Kinds of a measure: f.g, and |f - g|^2."""


@dataclass(slots=True)
class VectorSums:
    """Sums over a set of vectors, in float64.

    Attributes:
        n: number of vectors.
        total: their sum, (D,).
        squares: sum of their squared lengths.
    """

    n: int = 0
    total: np.ndarray = field(default_factory=lambda: np.zeros(1))
    squares: float = 0.0

    def add(self, vector: np.ndarray) -> None:
        """Takes in one vector, (D,)."""
        exact = vector.astype(np.float64)  # a copy: it becomes the sum
        if self.n:
            self.total += exact
        else:
            self.total = exact
        self.n += 1
        self.squares += float(exact @ exact)


def compare(one: np.ndarray, other: np.ndarray, *, kind: str) -> float:
    """The measure of a single pair of vectors, (D,) each."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    if kind == SIMILARITY:
        return float(a @ b)
    return float((a - b) @ (a - b))


def mean_within(sums: VectorSums, *, kind: str) -> float | None:
    """Mean over the unordered pairs of one set; None for fewer than two vectors."""
    if sums.n < 2:
        return None
    length = float(sums.total @ sums.total)
    if kind == SIMILARITY:
        return (length - sums.squares) / (sums.n * (sums.n - 1))
    # rounding may leave a hair less than nothing where all images are the same
    return max(0.0, 2 * (sums.n * sums.squares - length) / (sums.n * (sums.n - 1)))


def mean_between(one: VectorSums, other: VectorSums, *, kind: str) -> float | None:
    """Mean over all pairs of a vector of one set and one of the other; None if a set is empty."""
    if not one.n or not other.n:
        return None
    product = float((one.total / one.n) @ (other.total / other.n))
    if kind == SIMILARITY:
        return product
    return max(0.0, one.squares / one.n + other.squares / other.n - 2 * product)
