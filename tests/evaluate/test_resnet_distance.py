"""The embedded distance is LPIPS' formula over the ResNet's four stages, and never calls itself LPIPS."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from fastgen.errors import ModelError
from fastgen.evaluate import resnet_distance as module
from fastgen.evaluate.resnet_distance import resnet_measure
from tests.tiny_resnet import make_tiny_resnet


@pytest.fixture
def mini(tmp_path, monkeypatch):
    make_tiny_resnet(tmp_path / "resnet")
    monkeypatch.setattr(module, "MINI", tmp_path)
    return tmp_path


def pictures(count=3):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)) for _ in range(count)]


def test_distance_equals_the_formula_written_out(mini):
    found = resnet_measure()
    assert (found.name, found.kind) == ("resnet_distance", "distance")
    images = pictures()
    net = timm.create_model(f"local-dir:{mini / 'resnet'}", pretrained=True, features_only=True).eval()
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        stages = net((pixels - 0.4) / 0.2)[1:]
    assert len(stages) == 4
    expected = 0.0
    for stage in stages:
        unit = stage / stage.norm(dim=1, keepdim=True).clamp(min=1e-4)
        expected += float((unit[0] - unit[1]).square().sum(0).mean()) / 4
    vectors = found.embed(images).astype(np.float64)
    assert np.square(vectors[0] - vectors[1]).sum() == pytest.approx(expected, rel=1e-4)
    assert 0 < expected < 2


def test_hash_follows_the_weights(mini, tmp_path, monkeypatch):
    first = resnet_measure().sha256
    assert resnet_measure().sha256 == first
    make_tiny_resnet(tmp_path / "other" / "resnet", seed=1)
    monkeypatch.setattr(module, "MINI", tmp_path / "other")
    assert resnet_measure().sha256 != first


def test_incomplete_install_and_damaged_weights_are_named(mini, tmp_path, monkeypatch):
    (mini / "resnet" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="resnet_distance: the weights at .*resnet cannot be loaded"):
        resnet_measure()
    monkeypatch.setattr(module, "MINI", tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"no weights at .*nowhere.*--lpips alex"):
        resnet_measure()
