"""CLIP-I is open_clip's cosine with its own preprocessing; without weights there is one clear error."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.functional import pairwise_cosine_similarity

from fastgen.errors import ModelError
from fastgen.evaluate import measure as module
from fastgen.evaluate.measure import clip_measure
from tests.tiny_clip import make_tiny_clip


def test_cosine_equals_open_clip_and_torchmetrics(tmp_path):
    import open_clip

    folder = make_tiny_clip(tmp_path / "clip")
    found = clip_measure(folder)
    assert (found.name, found.kind) == ("clip_i", "similarity")
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)) for h, w in ((40, 40), (60, 33), (32, 90))]
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    with torch.inference_mode():
        raw = model.eval().encode_image(torch.stack([preprocess(image) for image in images]))
    expected = pairwise_cosine_similarity(raw, zero_diagonal=False)
    vectors = found.embed(images)
    np.testing.assert_allclose(vectors @ vectors.T, expected, atol=1e-5)
    assert float(expected[0, 1]) < 0.999


def test_hash_follows_weights_and_preprocessing(tmp_path):
    first = clip_measure(make_tiny_clip(tmp_path / "a")).sha256
    assert clip_measure(make_tiny_clip(tmp_path / "b")).sha256 == first
    assert clip_measure(make_tiny_clip(tmp_path / "c", seed=1)).sha256 != first
    config = tmp_path / "b" / "open_clip_config.json"
    config.write_text(config.read_text().replace("0.46", "0.36"))
    assert clip_measure(tmp_path / "b").sha256 != first


def test_the_embedded_clip_is_the_default_and_named_when_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MINI", tmp_path)
    with pytest.raises(ModelError, match=r"CLIP: no weights at .*clip.*--clip"):
        clip_measure()
    make_tiny_clip(tmp_path / "clip")
    assert clip_measure().about["model"] == "mini"
