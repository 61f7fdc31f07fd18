"""Training sets whose classes have exponentially falling numbers of images."""

import numpy as np

from fastgen.errors import FastgenError


def exponential_counts(frequencies: np.ndarray, imbalance: float) -> np.ndarray:
    """Images per class of a long-tailed training set, as Diff-Mix's code makes CUB-LT and Flower-LT.

    With the classes sorted by frequency (rank 0 has the most; equal ones in label order),
    n_c = max(1, int(N / C * f ^ (rank / (C - 2)))), where f = 1 / imbalance. The C - 2 is in that code: the last
    class is a little rarer than f. No class gets more images than it has.

    Args:
        frequencies: images of every class, integers (C,), each at least 1.
        imbalance: the imbalance factor IF, such as 100, at least 1; not f, its reciprocal.

    Returns:
        int64 (C,).

    Raises:
        FastgenError: if imbalance is below 1.
    """
    if imbalance < 1:
        raise FastgenError(f"imbalance is {imbalance}; it must be at least 1: the largest class over the smallest")
    n_classes = len(frequencies)
    rank = np.empty(n_classes, np.int64)
    rank[np.argsort(-frequencies, kind="stable")] = np.arange(n_classes)
    mean = frequencies.sum() / n_classes
    counts = (mean * (1.0 / imbalance) ** (rank / max(1, n_classes - 2))).astype(np.int64)
    return np.minimum(np.maximum(1, counts), frequencies).astype(np.int64)
