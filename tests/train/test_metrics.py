"""Accuracy against torchmetrics, and intervals against numbers worked out by hand."""

import numpy as np
import pytest
import torch

from fastgen.train.metrics import accuracy, paired_difference, spread


@pytest.mark.parametrize("average", ["macro", "micro"])
def test_accuracy_is_that_of_torchmetrics(average):
    from torchmetrics.functional.classification import multiclass_accuracy

    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(7), rng.choice(7, 400, p=np.arange(1, 8) / 28)])
    predictions = np.where(rng.random(len(labels)) < 0.6, labels, rng.integers(0, 7, len(labels)))
    ours = accuracy(labels, predictions, 7)
    theirs = multiclass_accuracy(
        torch.from_numpy(predictions), torch.from_numpy(labels), num_classes=7, average=average
    )
    assert getattr(ours, average) == pytest.approx(float(theirs), abs=1e-6)
    each = multiclass_accuracy(
        torch.from_numpy(predictions), torch.from_numpy(labels), num_classes=7, average=None
    )
    np.testing.assert_allclose(ours.per_class, each.numpy(), atol=1e-6)


def test_class_without_test_images_has_no_accuracy():
    found = accuracy(np.array([0, 0, 2]), np.array([0, 1, 2]), 3)
    assert found.macro == pytest.approx(0.75)
    assert found.micro == pytest.approx(2 / 3)
    assert np.isnan(found.per_class[1])


def test_accuracy_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="need equal, not 0"):
        accuracy(np.zeros(0, int), np.zeros(0, int), 2)


def test_spread_is_the_t_interval():
    """Card of BOB, mistake 25: a single run says little, so that every number comes with its spread over seeds."""
    found = spread([0.6, 0.7, 0.8])
    assert found["mean"] == pytest.approx(0.7)
    assert found["std"] == pytest.approx(0.1)
    # t(0.975, 2 degrees of freedom) = 4.302653
    np.testing.assert_allclose(
        found["ci95"], [0.7 - 4.302653 * 0.1 / 3**0.5, 0.7 + 4.302653 * 0.1 / 3**0.5], rtol=1e-6
    )


def test_one_seed_has_no_spread():
    assert spread([0.5]) == {"mean": 0.5, "std": None, "ci95": None, "n": 1}


def test_paired_difference_ignores_what_both_arms_share():
    found = paired_difference([0.1, 0.5, 0.9], [0.2, 0.6, 1.0])
    np.testing.assert_allclose(found["per_seed"], 0.1)
    assert found["std"] == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference([0.1], [0.1, 0.2])
