"""Features are computed once, found again, and made new when anything they depend on changes."""

import numpy as np
import pytest
import torch
from PIL import Image

from fastgen.train.backbone import Backbone, Recipe
from fastgen.train.features import FeatureCache, augment, encode

RECIPE = Recipe(optimizer="adam", lr=1e-2, weight_decay=0.0, steps=10)


class Pictures:
    """An image source in memory that counts how often it is read."""

    def __init__(self, count=70, sha256="a"):
        rng = np.random.default_rng(0)
        self.pictures = [Image.fromarray(rng.integers(0, 256, (10, 14, 3), np.uint8)) for _ in range(count)]
        self.sha256 = sha256
        self.reads = 0

    def __len__(self):
        return len(self.pictures)

    def images(self):
        self.reads += 1
        yield from self.pictures


def make_backbone(**changes):
    """Features are the mean of the normalised pixels per channel."""
    settings = {
        "name": "mini-resnet", "dim": 3, "size": 8, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0),
        "sha256": "w", "recipe": RECIPE, "encode": lambda pixels: pixels.mean((2, 3)),
    }  # fmt: skip
    return Backbone(**settings | changes)


def test_shape_and_clean_view(tmp_path):
    source = Pictures()
    found = FeatureCache(tmp_path, make_backbone(), 2).get(source)
    assert found.shape == (70, 3, 3)
    assert found.dtype == np.float32
    expected = encode(source.pictures[:5], make_backbone())
    np.testing.assert_allclose(found[:5, 0], expected, atol=1e-6)
    assert not np.allclose(found[:, 1], found[:, 2])


def test_cache_is_reused(tmp_path):
    source = Pictures()
    first = FeatureCache(tmp_path, make_backbone(), 2).get(source)
    again = FeatureCache(tmp_path, make_backbone(), 2).get(source)
    assert source.reads == 1
    np.testing.assert_array_equal(first, again)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]


@pytest.mark.parametrize(
    "change", [{"sha256": "other"}, {"mean": (0.5, 0.5, 0.5)}, {"std": (0.5, 0.5, 0.5)}, {"size": 6}]
)
def test_another_backbone_is_computed_anew(tmp_path, change):
    source = Pictures(3)
    FeatureCache(tmp_path, make_backbone(), 1).get(source)
    FeatureCache(tmp_path, make_backbone(**change), 1).get(source)
    assert source.reads == 2


def test_other_images_or_views_are_computed_anew(tmp_path):
    source = Pictures(3)
    FeatureCache(tmp_path, make_backbone(), 1).get(source)
    FeatureCache(tmp_path, make_backbone(), 2).get(source)
    assert FeatureCache(tmp_path, make_backbone(), 2).get(source, augmented=False).shape == (3, 1, 3)
    assert source.reads == 3
    source.sha256 = "b"
    FeatureCache(tmp_path, make_backbone(), 1).get(source)
    assert source.reads == 4


def test_nothing_is_left_when_an_image_fails(tmp_path):
    source = Pictures(3)
    source.pictures.append(None)
    with pytest.raises(AttributeError):
        FeatureCache(tmp_path, make_backbone(), 0).get(source)
    assert list(tmp_path.iterdir()) == []


def test_views_are_the_same_every_time_and_differ():
    picture = Pictures(1).pictures[0]
    assert augment(picture, 3, 0) is picture
    one, same, other = augment(picture, 3, 1), augment(picture, 3, 1), augment(picture, 3, 2)
    assert one.tobytes() == same.tobytes() != other.tobytes()
    assert one.size == picture.size


def test_encode_squashes_and_normalises():
    backbone = make_backbone(
        mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0), encode=lambda x: x[:, :, 0, 0] * (x.shape[-1] == 8)
    )
    found = encode([Image.new("RGB", (20, 9), (255, 0, 51))], backbone)
    np.testing.assert_allclose(found, [[1.0, -1.0, 0.2]], atol=1e-6)
    assert torch.from_numpy(found).dtype == torch.float32
