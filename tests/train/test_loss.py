"""The weighted loss against torch, and CutMix and MixUp against torchvision, part by part."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.transforms import v2

from fastgen.train.loss import Targets, image_weights, mix_parts, weighted_loss
from fastgen.train.recipe import Recipe


def loss_of(is_real, w, logits, labels):
    weights = torch.from_numpy(image_weights(is_real, w)).float()
    return weighted_loss(logits, labels, weights, smoothing=0.0)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 3, generator=generator), torch.arange(8) % 3


@pytest.mark.parametrize("w", [0.8, 0.5])
def test_real_weight_weights_the_mean_over_real_images(batch, w):
    """Card of BOB, mistake 12: w is the weight of the real images, not its complement."""
    logits, labels = batch
    is_real = np.arange(8) < 3
    real = functional.cross_entropy(logits[:3], labels[:3])
    synthetic = functional.cross_entropy(logits[3:], labels[3:])
    torch.testing.assert_close(loss_of(is_real, w, logits, labels), w * real + (1 - w) * synthetic)


def test_a_batch_without_one_part_has_a_finite_loss(batch):
    """Card of BOB, mistake 11."""
    logits, labels = batch
    mean = functional.cross_entropy(logits, labels)
    torch.testing.assert_close(loss_of(np.ones(8, bool), 0.8, logits, labels), 0.8 * mean)
    torch.testing.assert_close(loss_of(np.zeros(8, bool), 0.8, logits, labels), 0.2 * mean)


def test_without_a_weight_it_is_the_mean(batch):
    logits, labels = batch
    mean = functional.cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(weighted_loss(logits, labels, None, smoothing=0.1), mean)
    each = loss_of(np.arange(8) < 3, None, logits, labels)
    torch.testing.assert_close(each, functional.cross_entropy(logits, labels))


def test_soft_targets_are_taken_as_they_are():
    targets = Targets(np.array([0, 2, 1]), 3, {1: np.array([0.25, 0.0, 0.65])})
    found = targets.of(np.array([1, 2]))
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.0, 0.65], [0.0, 1.0, 0.0]]))
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    by_hand = -(found[:1] * torch.log_softmax(logits, 1)).sum()
    torch.testing.assert_close(weighted_loss(logits, found[:1], None, smoothing=0.0), by_hand)
    assert Targets(np.array([0, 2]), 3).of(np.array([1])).tolist() == [2]


def parts(n_real, n_synthetic):
    """Real images of value 0.0 to 0.4 and class 0 or 1, synthetic ones from 10 on and class 2 or 3."""
    values = torch.cat([torch.arange(n_real) * 0.1, 10.0 + torch.arange(n_synthetic)])
    labels = torch.cat([torch.arange(n_real) % 2, 2 + torch.arange(n_synthetic) % 2])
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(3))
    return values[order][:, None, None, None].expand(-1, 3, 8, 8).clone(), labels[order], (values < 5)[order]


@pytest.mark.parametrize("kind", ["cutmix", "mixup"])
def test_real_and_synthetic_images_are_never_mixed(kind):
    """Card of BOB, mistake 14."""
    recipe = Recipe(mix_p=1.0, **{"cutmix": 0.0, "mixup": 0.0, kind: 1.0})
    x, labels, is_real = parts(5, 5)
    changed = 0
    for seed in range(20):
        torch.manual_seed(seed)
        mixed, soft = mix_parts(x, labels, is_real, n_classes=4, recipe=recipe)
        assert (mixed[is_real] < 5).all() and (mixed[~is_real] >= 10 - 1e-5).all()
        assert (soft[is_real][:, 2:] == 0).all() and (soft[~is_real][:, :2] == 0).all()
        torch.testing.assert_close(soft.sum(1), torch.ones(10))
        changed += int(not torch.equal(mixed, x))
    assert changed > 15


def test_a_part_is_mixed_as_torchvision_does():
    recipe = Recipe(mix_p=1.0, cutmix=0.0, mixup=1.0)
    x, labels, is_real = parts(4, 0)
    torch.manual_seed(5)
    mixed, soft = mix_parts(x, labels, is_real, n_classes=4, recipe=recipe)
    torch.manual_seed(5)
    torch.rand(()), torch.randint(1, ())
    expected = v2.MixUp(alpha=1.0, num_classes=4)(x, labels)
    torch.testing.assert_close(mixed, expected[0])
    torch.testing.assert_close(soft, expected[1])


def test_one_image_or_none_in_a_part_is_left_alone():
    recipe = Recipe(mix_p=1.0)
    for n_real, n_synthetic in ((1, 1), (0, 1), (1, 0)):
        x, labels, is_real = parts(n_real, n_synthetic)
        mixed, soft = mix_parts(x, labels, is_real, n_classes=4, recipe=recipe)
        torch.testing.assert_close(mixed, x)
        torch.testing.assert_close(soft, functional.one_hot(labels, 4).float())


def test_mix_p_is_the_share_of_mixed_batches():
    x, labels, is_real = parts(3, 3)
    torch.manual_seed(0)
    recipe = Recipe(mix_p=0.2)
    mixed = [mix_parts(x, labels, is_real, n_classes=4, recipe=recipe)[1].ndim == 2 for _ in range(600)]
    assert np.mean(mixed) == pytest.approx(0.2, abs=0.05)  # three standard errors
    assert mix_parts(x, labels, is_real, n_classes=4, recipe=Recipe())[0] is x
