"""Exponential counts by hand, and accuracies of groups of classes."""

import math

import numpy as np
import pytest

from fastgen.errors import FastgenError
from fastgen.train.long_tail import exponential_counts
from fastgen.train.metrics import grouped_accuracy, resampled_accuracy


def test_counts_follow_the_formula_of_diff_mix():
    frequencies = np.array([30] * 200)
    found = exponential_counts(frequencies, 100)
    expected = [max(1, int(30 * 0.01 ** (rank / 198))) for rank in range(200)]
    assert found.tolist() == expected
    assert (found[0], found[-1]) == (30, 1)


def test_imbalance_is_a_factor_and_not_its_reciprocal():
    """Card of BOB, mistake 22."""
    found = exponential_counts(np.array([1000] * 12), 50)
    assert found[0] / found[10] == pytest.approx(50, rel=0.06)  # rank C - 2 has f exactly, up to int
    assert found[11] == int(1000 * 0.02 ** (11 / 10))
    with pytest.raises(FastgenError, match="imbalance is 0.02; it must be at least 1"):
        exponential_counts(np.array([10, 10, 10]), 0.02)


def test_frequent_classes_stay_frequent_and_none_gets_more_than_it_has():
    found = exponential_counts(np.array([3, 40, 20, 60]), 10)
    assert np.argsort(-found, kind="stable").tolist() == [3, 1, 2, 0]
    assert (found <= [3, 40, 20, 60]).all() and found.min() >= 1
    assert exponential_counts(np.array([5, 5]), 10).tolist() == [5, 1]


def test_groups_by_number_of_real_images():
    found = grouped_accuracy([0.9, 0.7, 0.5, 0.3, math.nan], [21, 20, 5, 4, 1], many=20, few=5)
    assert found["many"] == {"accuracy": pytest.approx(0.9), "classes": 1}
    assert found["medium"] == {"accuracy": pytest.approx(0.6), "classes": 2}
    assert found["few"] == {"accuracy": pytest.approx(0.3), "classes": 2}
    assert grouped_accuracy([1.0], [9], many=20, few=5)["few"] == {"accuracy": None, "classes": 0}


def test_resampled_accuracy_is_macro_with_noise_and_zero_for_undrawn_classes():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 30)
    predictions = np.where(rng.random(300) < 0.1 + 0.08 * labels, labels, (labels + 1) % 10)
    exact = np.mean([(predictions == labels)[labels == c].mean() for c in range(10)])
    found = [resampled_accuracy(labels, predictions, 10, np.random.default_rng(s)).macro for s in range(20)]
    assert np.mean(found) == pytest.approx(exact, abs=0.004)
    assert 0.001 < np.std(found) < 0.01
    with_absent = resampled_accuracy(labels, labels, 20, np.random.default_rng(0))
    assert with_absent.macro == pytest.approx(0.5)
