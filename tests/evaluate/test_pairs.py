"""Means from sums equal means over pairs that are really formed."""

from itertools import combinations

import numpy as np
import pytest
import torch
from torchmetrics.functional import pairwise_cosine_similarity

from fastgen.evaluate.pairs import VectorSums, compare, mean_between, mean_within

KINDS = ("similarity", "distance")


def sums_of(vectors):
    sums = VectorSums()
    for vector in np.asarray(vectors, np.float32):
        sums.add(vector)
    return sums


def vectors(count, seed=0, width=6):
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def test_three_vectors_by_hand():
    found = [(1, 0), (0, 1), (1, 1)]
    # products 0, 1, 1; squared distances 2, 1, 1
    assert mean_within(sums_of(found), kind="similarity") == pytest.approx(2 / 3)
    assert mean_within(sums_of(found), kind="distance") == pytest.approx(4 / 3)
    real = [(2, 0)]
    # products 2, 0, 2; squared distances 1, 5, 2
    assert mean_between(sums_of(found), sums_of(real), kind="similarity") == pytest.approx(4 / 3)
    assert mean_between(sums_of(found), sums_of(real), kind="distance") == pytest.approx(8 / 3)


@pytest.mark.parametrize("kind", KINDS)
def test_sums_agree_with_pairs_one_by_one(kind):
    one, other = vectors(7), vectors(4, seed=1)
    within = np.mean([compare(a, b, kind=kind) for a, b in combinations(one, 2)])
    between = np.mean([compare(a, b, kind=kind) for a in one for b in other])
    assert mean_within(sums_of(one), kind=kind) == pytest.approx(within, rel=1e-12)
    assert mean_between(sums_of(one), sums_of(other), kind=kind) == pytest.approx(between, rel=1e-12)


def test_similarity_of_unit_vectors_is_the_cosine_of_torchmetrics():
    one, other = vectors(9), vectors(5, seed=1)
    matrix = pairwise_cosine_similarity(torch.from_numpy(one), torch.from_numpy(other))
    own = pairwise_cosine_similarity(torch.from_numpy(one))
    upper = own[torch.triu(torch.ones(9, 9), diagonal=1).bool()]
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (one, other)]
    assert mean_between(*map(sums_of, unit), kind="similarity") == pytest.approx(float(matrix.mean()), abs=1e-6)
    assert mean_within(sums_of(unit[0]), kind="similarity") == pytest.approx(float(upper.mean()), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_too_few_vectors_have_no_mean(kind):
    none, one = sums_of(np.zeros((0, 2))), sums_of([(1, 2)])
    assert mean_within(none, kind=kind) is None
    assert mean_within(one, kind=kind) is None
    assert mean_between(one, none, kind=kind) is None
    assert mean_between(none, one, kind=kind) is None
    assert mean_between(one, one, kind=kind) is not None


def test_equal_images_have_distance_zero_and_not_less():
    same = sums_of(np.repeat(vectors(1, width=50), 30, axis=0))
    assert 0 <= mean_within(same, kind="distance") < 1e-12
    assert 0 <= mean_between(same, same, kind="distance") < 1e-12


def test_large_vectors_lose_no_digits_that_float32_would():
    base = np.full(20_000, 10.0, np.float32)
    other = base.copy()
    other[0] += np.float32(0.01)
    expected = float(np.float64(other[0] - base[0]) ** 2)
    assert mean_within(sums_of([base, other]), kind="distance") == pytest.approx(expected, rel=1e-3)
