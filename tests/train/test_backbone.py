"""Backbones load from local folders of tiny random weights; without weights there is one clear error."""

import json

import numpy as np
import pytest
import torch

from fastgen.errors import FastgenError, ModelError
from fastgen.train import backbone as module
from fastgen.train.backbone import load_backbone, with_norm
from fastgen.train.recipes import MINI_CLIP, MINI_RESNET
from tests.tiny_resnet import make_tiny_resnet


@pytest.fixture(scope="module")
def resnet_folder(tmp_path_factory):
    return make_tiny_resnet(tmp_path_factory.mktemp("resnet") / "tiny")


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """An open_clip folder: 32 px, two narrow towers, open_clip's own tokenizer, random weights."""
    import open_clip
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    config = {
        "model_cfg": {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 16, "layers": 1, "head_width": 8},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
        },
        "preprocess_cfg": {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "size": 32},
    }
    torch.manual_seed(0)
    model = open_clip.CLIP(**config["model_cfg"])
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def test_resnet_gives_pooled_features_of_its_own_preprocessing(resnet_folder):
    found = load_backbone(f"mini-resnet={resnet_folder}", device="cpu")
    assert (found.name, found.dim, found.size, found.mean) == ("mini-resnet", 24, 32, (0.4, 0.4, 0.4))
    features = found.encode(torch.zeros(2, 3, 32, 32))
    assert features.shape == (2, 24)
    assert features.dtype == torch.float32 and not features.requires_grad
    assert found.encode_text is None
    assert found.recipe == MINI_RESNET


def test_batch_norm_is_frozen(resnet_folder):
    found = load_backbone(f"mini-resnet={resnet_folder}", device="cpu")
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([found.encode(x[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(found.encode(x), alone, rtol=1e-4, atol=1e-5)


def test_half_norm_replaces_mean_and_std(resnet_folder):
    found = with_norm(load_backbone(f"mini-resnet={resnet_folder}", device="cpu"), "half")
    assert found.mean == found.std == (0.5, 0.5, 0.5)


def test_clip_gives_unnormalised_features_and_texts(clip_folder):
    found = load_backbone(f"mini-clip={clip_folder}", device="cpu")
    assert (found.dim, found.size) == (16, 32)
    text = found.encode_text(["a photo of a cat", "a photo of a dog"])
    assert text.shape == (2, 16)
    assert not np.allclose(text.norm(dim=1), 1.0)
    assert found.encode(torch.zeros(3, 3, 32, 32)).shape == (3, 16)
    assert found.recipe == MINI_CLIP


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vgg", "backbone is 'vgg'; it must be one of mini-resnet"),
        ("mini-resnet=/nowhere", "no weights at /nowhere"),
    ],
)
def test_unknown_name_or_place(name, message):
    with pytest.raises(FastgenError, match=message):
        load_backbone(name)


@pytest.mark.parametrize("name", ["resnet50", "clip-vit-b16"])
def test_hub_out_of_reach_says_what_to_do(name, monkeypatch):
    import open_clip
    import timm

    def offline(*args, **options):
        raise OSError("offline\nwith a long story")

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(open_clip, "create_model", offline)
    with pytest.raises(ModelError, match=rf"not on this machine .*\(offline\).*--backbone {name}=PATH"):
        load_backbone(name)


def test_incomplete_install_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "MINI", tmp_path)
    with pytest.raises(ModelError, match=r"no weights at .*resnet.*--backbone mini-resnet=PATH"):
        load_backbone("mini-resnet")


def test_damaged_weights_are_named(resnet_folder, tmp_path):
    (tmp_path / "config.json").write_text((resnet_folder / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_backbone(f"mini-resnet={tmp_path}")
