"""The Fréchet distance of two sets of feature vectors (FID, Heusel et al., 2017), for small sets too."""

import numpy as np


def frechet_distance(generated: np.ndarray, real: np.ndarray) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of the means m and covariances S of both sets.

    With centred features X of N rows, S = X^T X / (N - 1), and the trace of the root is the sum of the singular values
    of X1 X2^T / sqrt((N1 - 1)(N2 - 1)): no root of a singular matrix is needed, and fewer images than dimensions are
    no numerical trouble. They remain a statistical one: FID falls with the number of images, whatever they show, so
    that only numbers of equally many images can be compared.

    Args:
        generated: (N1, D), N1 >= 2.
        real: (N2, D), N2 >= 2.

    Returns:
        The distance, >= 0.

    Raises:
        ValueError: a set has fewer than two vectors, or the lengths differ.
    """
    first, second = (np.asarray(features, np.float64) for features in (generated, real))
    if min(len(first), len(second)) < 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"got sets of {first.shape} and {second.shape}; allowed: 2 or more vectors of one length")
    shift = first.mean(0) - second.mean(0)
    x, y = _root(first), _root(second)
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return max(0.0, float((shift**2).sum() + (x**2).sum() + (y**2).sum() - 2 * cross))


def _root(features: np.ndarray) -> np.ndarray:
    """A matrix X (min(N, D), D) with X^T X the covariance."""
    centred = (features - features.mean(0)) / np.sqrt(len(features) - 1)
    return centred if len(centred) <= centred.shape[1] else np.asarray(np.linalg.qr(centred, mode="r"))
