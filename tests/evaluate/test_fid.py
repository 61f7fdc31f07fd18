"""FID against torchmetrics on the same features, exact values, and the notes on numbers of images."""

import numpy as np
import pytest
import torch

from fastgen.evaluate.class_fid import fid_entry, fid_notes
from fastgen.evaluate.features import module_features
from fastgen.evaluate.fid import frechet_distance


class Pooled(torch.nn.Module):
    """A fixed feature extractor with the interface of torchmetrics' FID: uint8 (B, 3, H, W) -> (B, D)."""

    def __init__(self, dimensions=6):
        super().__init__()
        weights = torch.randn(dimensions, 48, generator=torch.Generator().manual_seed(1))
        self.register_buffer("weights", weights)

    def forward(self, pixels):
        return torch.nn.functional.adaptive_avg_pool2d(pixels.float() / 255, 4).flatten(1) @ self.weights.T


def images(count, seed, low=0):
    from PIL import Image

    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(low, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize("counts", [(40, 30), (7, 50), (200, 100)])
def test_equals_torchmetrics(counts):
    from torchmetrics.image.fid import FrechetInceptionDistance

    module = Pooled()
    generated, real = images(counts[0], 0), images(counts[1], 1, low=40)
    metric = FrechetInceptionDistance(feature=module, input_img_size=(3, 16, 16))
    for side, is_real in ((generated, False), (real, True)):
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in side])).permute(0, 3, 1, 2)
        metric.update(pixels, real=is_real)
    features = module_features(module)
    ours = frechet_distance(features.embed(generated), features.embed(real))
    assert ours == pytest.approx(float(metric.compute()), rel=1e-4)


def test_fewer_images_than_dimensions_equal_the_root_of_the_regularised_matrices():
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(6, 10)), rng.normal(1, 2, size=(40, 10))
    covariances = [np.cov(x, rowvar=False) for x in (first, second)]
    root = sqrtm(covariances[0] @ covariances[1] + 1e-13 * np.eye(10)).real
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-4)


def test_exact_values():
    x = np.random.default_rng(0).normal(size=(30, 4))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x + 3) == pytest.approx(36)
    assert frechet_distance(x, 2 * (x - x.mean(0)) + x.mean(0)) == pytest.approx(np.cov(x, rowvar=False).trace())
    assert frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-9)
    for bad in (x[:1], x[:, :3]):
        with pytest.raises(ValueError, match="2 or more vectors of one length"):
            frechet_distance(x, bad)


def test_a_class_needs_two_images_on_both_sides():
    rng = np.random.default_rng(0)
    sets = {name: rng.normal(size=(n, 3)) for name, n in (("a", 8), ("b", 8), ("c", 1))}
    real = {name: rng.normal(1, 1, size=(n, 3)) for name, n in (("a", 8), ("c", 8))}
    entry = fid_entry(["a", "b", "c", "d"], sets, real)
    assert entry["classes"] == 1 and entry["mean"] == entry["per_class"]["a"]["fid"] == entry["all"]
    assert entry["per_class"]["b"] == {"fid": None, "images": 8, "real": 0}
    assert entry["per_class"]["c"] == {"fid": None, "images": 1, "real": 8}
    assert "3 classes have fewer than two" in fid_notes(entry)[0]


def test_unequal_and_small_numbers_of_images_are_said():
    """Mistake 20."""
    rng = np.random.default_rng(0)
    equal = {name: rng.normal(size=(9, 3)) for name in "ab"}
    notes = fid_notes(fid_entry("ab", equal, equal))
    assert len(notes) == 1 and "with 9 generated and 9 real images per class" in notes[0]
    unequal = {"a": equal["a"], "b": equal["b"][:5]}
    assert "do not compare with each other" in fid_notes(fid_entry("ab", unequal, equal))[0]
    small = {name: x[:3] for name, x in equal.items()}
    assert "bias of small samples" in fid_notes(fid_entry("ab", small, small))[-1]


def test_fid_falls_with_the_number_of_images_of_one_distribution():
    """Why the notes are there: the same distribution, and still another number."""
    rng = np.random.default_rng(0)
    few, many = (np.mean([frechet_distance(*rng.normal(size=(2, n, 8))) for _ in range(20)]) for n in (10, 100))
    assert few > 5 * many
