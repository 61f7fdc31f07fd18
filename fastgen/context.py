"""Whether class and context depend on each other: chi-square and mutual information of what a bank or images pair.

BOB's marginalisation (arXiv 2510.24078) draws the context Z of every image from P(Z), whatever the class Y. Then Y and
Z are independent among the rows; if the donor of every row is of the row's own class, they are not. Both checks work
on counts alone and know no file format.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

SHUFFLES = 1999
"""Shuffles of one of the two variables, for a p value that is right for small and sparse tables too."""
LEVEL = 0.001
"""Below this p value two variables count as dependent: one bank in a thousand is called so by chance."""
MOST_SHUFFLED = 200_000
"""Above so many observations the tables are full enough for the chi-square distribution, and shuffling takes long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Independence:
    """What a table of counts says about two variables.

    Attributes:
        n: observations.
        rows, columns: values of the first and of the second variable that occur.
        chi2: Pearson's statistic, without continuity correction; `dof` its degrees of freedom.
        p_chi2: of the chi-square distribution; wrong where most cells expect fewer than 5 observations.
        sparse: share of cells that do.
        p: share of shuffles whose statistic is at least as large, (k + 1) / (shuffles + 1); `p_chi2` for more than
            `MOST_SHUFFLED` observations.
        mutual_information: I, plug-in estimate in nats, >= 0.
        bias: what the estimate is expected to be when both are independent, dof / (2 n) nats: never read I without
            it.
        entropy: of the first variable in nats; I can be no larger.
    """

    n: int
    rows: int
    columns: int
    chi2: float
    dof: int
    p_chi2: float
    sparse: float
    p: float
    mutual_information: float
    bias: float
    entropy: float

    @property
    def dependent(self) -> bool:
        """Whether chance is no explanation: p below `LEVEL`."""
        return self.p < LEVEL

    def to_json(self) -> dict[str, Any]:
        """All numbers, and the verdict."""
        return {**asdict(self), "dependent": self.dependent}

    def __str__(self) -> str:
        """One line for a person."""
        verdict = "DEPEND on each other" if self.dependent else "are independent"
        return (
            f"{verdict}: chi2 {self.chi2:.1f} with {self.dof} degrees of freedom, p {self.p:.3g}; "
            f"I = {self.mutual_information:.3f} nats ({self.bias:.3f} by chance alone, {self.entropy:.3f} at most)"
        )


def independence(first: Sequence[Hashable], second: Sequence[Hashable], *, seed: int = 0) -> Independence:
    """Compare two variables that were observed together.

    Args:
        first: N values, such as classes.
        second: N values, such as contexts.
        seed: of the shuffles.

    Returns:
        The statistics; a variable with one value only is independent of everything (p 1, chi2 0).

    Raises:
        ValueError: no observations, or the lengths differ.
    """
    from scipy.stats import chi2 as distribution

    if len(first) != len(second) or not len(first):
        raise ValueError(f"got {len(first)} and {len(second)} observations; allowed: equally many, at least one")
    a, b = _codes(first), _codes(second)
    table = _table(a, b)
    n = len(a)
    expected = np.outer(table.sum(1), table.sum(0)) / n
    statistic, dof = _chi2(table, expected), (table.shape[0] - 1) * (table.shape[1] - 1)
    p_chi2 = float(distribution.sf(statistic, dof)) if dof else 1.0
    return Independence(
        n=n,
        rows=table.shape[0],
        columns=table.shape[1],
        chi2=statistic,
        dof=dof,
        p_chi2=p_chi2,
        sparse=float((expected < 5).mean()),
        p=_shuffled(a, b, expected, seed) if dof and n <= MOST_SHUFFLED else p_chi2,
        mutual_information=_information(table, expected),
        bias=dof / (2 * n),
        entropy=_entropy(table.sum(1)),
    )


def context_of_rows(rows: Iterable[Mapping[str, Any]]) -> dict[str, Independence]:
    """Check the rows of a bank or a plan, as JSON objects: class against what their donors gave.

    Args:
        rows: those with `attrs` count; the others are passed over.

    Returns:
        `context`: class against the pair of background and pose; `donor`: class against the class of the donor. Only
        what the rows have; nothing for a bank without donors.
    """
    classes: list[Hashable] = []
    contexts: list[Hashable] = []
    donors: list[Hashable] = []
    for row in rows:
        attrs = row.get("attrs") or {}
        if attrs.get("donor_id") is None:
            continue
        classes.append(row["class"])
        contexts.append((attrs.get("background"), attrs.get("pose")))
        donors.append(attrs.get("donor_label"))
    if not classes:
        return {}
    found = {"context": independence(classes, contexts)}
    return found if None in donors else {**found, "donor": independence(classes, donors)}


def _codes(values: Sequence[Hashable]) -> np.ndarray:
    """Number the different values from 0, in the order in which they come; int64 (N,)."""
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values], np.int64)


def _table(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Counts of every pair of codes, float64 (A, B)."""
    shape = int(a.max()) + 1, int(b.max()) + 1
    return np.bincount(a * shape[1] + b, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)


def _chi2(table: np.ndarray, expected: np.ndarray) -> float:
    return float(((table - expected) ** 2 / expected).sum())


def _shuffled(a: np.ndarray, b: np.ndarray, expected: np.ndarray, seed: int) -> float:
    """The p value of a permutation test; shuffling keeps both margins, so `expected` holds for every shuffle."""
    rng = np.random.default_rng(seed)
    width = expected.shape[1]
    weight = 1 / expected.ravel()

    def statistic(order: np.ndarray) -> float:
        counts = np.bincount(a * width + order, minlength=len(weight))
        return float((counts**2 * weight).sum())  # chi2 + n

    own = statistic(b) * (1 - 1e-12)  # the same table in another order of summation is as large
    return (1 + sum(statistic(rng.permutation(b)) >= own for _ in range(SHUFFLES))) / (SHUFFLES + 1)


def _information(table: np.ndarray, expected: np.ndarray) -> float:
    there = table > 0
    found = table[there] / table.sum() * np.log(table[there] / expected[there])
    return max(0.0, float(found.sum()))


def _entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
