"""Networks, LoRA, optimizers and transforms against timm, peft, torch and the papers' formulas."""

import copy
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from fastgen.errors import FastgenError, ModelError
from fastgen.train.backbone import load_backbone
from fastgen.train.clip_lora import SplitAttention, add_lora, merge_lora
from fastgen.train.head import class_prompts
from fastgen.train.network import learnt_state, load_learnt, new_network, start_training
from fastgen.train.optimizer import LearningRate, layer_groups, make_optimizer
from fastgen.train.recipe import Recipe
from fastgen.train.recipes import named_recipe
from fastgen.train.transforms import seeded, test_transform, train_transform
from tests.tiny_clip import make_tiny_clip
from tests.tiny_resnet import make_tiny_resnet
from tests.tiny_vit import make_tiny_vit

CLASSES = ("cat", "dog", "sea_lion")
LORA = Recipe(tune="lora", lora_dropout=0.0, lora_rank=4, lora_alpha=8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return load_backbone(f"open_clip/tiny={make_tiny_clip(tmp_path_factory.mktemp('c') / 'clip')}", device="cpu")


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    return load_backbone(f"timm/tiny={make_tiny_resnet(tmp_path_factory.mktemp('r') / 'net')}", device="cpu")


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return load_backbone(f"mae-vit-b16={make_tiny_vit(tmp_path_factory.mktemp('v') / 'vit')}", device="cpu")


def pixels(n=2, seed=0):
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_kinds_of_backbones(clip, resnet, vit):
    assert (clip.kind, resnet.kind, vit.kind) == ("clip", "cnn", "vit")
    with pytest.raises(FastgenError, match="backbone is 'vgg'; it must be .*timm/<model.tag>, open_clip/<model>:"):
        load_backbone("vgg")


@pytest.mark.parametrize("batch_first", [True, False])
def test_split_attention_computes_what_torchs_does(batch_first):
    torch.manual_seed(0)
    fused = nn.MultiheadAttention(12, 3, batch_first=batch_first).eval()
    nn.init.normal_(fused.in_proj_bias)
    x = torch.randn(2, 5, 12)
    mask = torch.full((x.shape[1 if batch_first else 0],) * 2, -math.inf).triu_(1)
    split = SplitAttention(fused).eval()
    for given in (None, mask, mask.isinf()):
        expected = fused(x, x, x, need_weights=False, attn_mask=given)[0]
        torch.testing.assert_close(split(x, x, x, attn_mask=given)[0], expected)


def test_lora_starts_as_the_zero_shot_classifier_and_trains_q_and_v_of_both_towers(clip):
    network = new_network(clip, CLASSES, LORA, seed=0).eval()
    image = functional.normalize(clip.encode(pixels()), dim=-1)
    text = functional.normalize(clip.encode_text(class_prompts(CLASSES)), dim=-1)
    expected = clip.model.logit_scale.exp() * image @ text.T
    torch.testing.assert_close(network(pixels()), expected.detach(), rtol=1e-4, atol=1e-4)
    learnable = [name for name, p in network.named_parameters() if p.requires_grad]
    assert len(learnable) == 2 * 2 * 2  # towers, projections, A and B
    assert {name.split(".attn.")[1].split(".")[0] for name in learnable} == {"q_proj", "v_proj"}
    scales = {m.scaling["default"] for m in network.modules() if hasattr(m, "scaling")}
    assert scales == {2.0}


def test_lora_changes_both_towers_and_merges_into_an_ordinary_open_clip_model(clip):
    model = copy.deepcopy(clip.model)
    add_lora(model, LORA)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    model.eval()
    tokens = clip.tokenize(["a photo of a cat"])
    with torch.no_grad():
        image, text = model.encode_image(pixels()), model.encode_text(tokens)
    assert not torch.allclose(image, clip.encode(pixels()), atol=1e-2)
    assert not torch.allclose(text, clip.encode_text(["a photo of a cat"]), atol=1e-2)
    merge_lora(model)
    plain = copy.deepcopy(clip.model)
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(plain.encode_image(pixels()), image, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(plain.encode_text(tokens), text, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_tuned_like_that_is_refused(resnet, clip):
    with pytest.raises(FastgenError, match="tune lora needs a CLIP; timm/tiny has no text tower"):
        new_network(resnet, CLASSES, LORA, seed=0)
    with pytest.raises(FastgenError, match="needs head cosine, got text"):
        new_network(clip, CLASSES, Recipe(tune="lora", head="text"), seed=0)
    with pytest.raises(ModelError, match="image tower of this one has no block"):
        model = copy.deepcopy(clip.model)
        model.visual = nn.Identity()
        add_lora(model, LORA)
    with pytest.raises(FastgenError, match="layer_decay needs a timm model"):
        make_optimizer(new_network(clip, CLASSES, LORA, seed=0), Recipe(tune="full", layer_decay=0.5))


def test_batch_norm_is_frozen_trained_or_drifts(resnet):
    x = pixels(8, seed=1)

    def buffers_after(recipe):
        network = new_network(resnet, CLASSES, recipe, seed=0)
        start_training(network, recipe)
        before = {name: b.clone() for name, b in network.named_buffers()}
        network(x).sum().backward()
        changed = any(not torch.equal(before[name], b) for name, b in network.named_buffers())
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        return changed, norms[0].weight.grad is not None

    assert buffers_after(Recipe()) == (False, False)
    assert buffers_after(Recipe(bn="batch_stats")) == (True, False)
    assert buffers_after(Recipe(tune="full")) == (False, True)
    assert buffers_after(Recipe(tune="full", bn="train")) == (True, True)


def test_learnt_state_is_enough_to_rebuild_a_network(resnet):
    recipe = Recipe(tune="full", bn="train")
    network = new_network(resnet, CLASSES, recipe, seed=0)
    start_training(network, recipe)
    network(pixels(8)).sum().backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    again = new_network(resnet, CLASSES, recipe, seed=7)
    load_learnt(again, learnt_state(network))
    torch.testing.assert_close(again.eval()(pixels()), network.eval()(pixels()))
    assert set(learnt_state(new_network(resnet, CLASSES, Recipe(), seed=0))) >= {"head.weight", "head.bias"}
    assert not torch.equal(resnet.model.conv1[0].weight, again.encoder.conv1[0].weight)


def test_layer_decay_gives_every_layer_timms_scale(vit, tmp_path):
    import timm

    network = new_network(vit, CLASSES, Recipe(tune="full"), seed=0)
    reference = timm.create_model(
        "vit_tiny_patch16_224", num_classes=3, global_pool="avg", img_size=32, patch_size=8, embed_dim=16, depth=2,
        num_heads=2,
    )  # fmt: skip
    options = timm.optim.param_groups_layer_decay(
        reference, weight_decay=0.05, layer_decay=0.65, no_weight_decay_list=reference.no_weight_decay()
    )
    name_of = {id(p): name for name, p in reference.named_parameters()}
    expected = {name_of[id(p)]: (g["lr_scale"], g["weight_decay"]) for g in options for p in g["params"]}
    own_name = {id(p): name.removeprefix("encoder.") for name, p in network.named_parameters()}
    groups = layer_groups(network, 0.65, 0.05)
    found = {own_name[id(p)]: (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert found == expected
    assert found["blocks.0.attn.qkv.weight"] == (pytest.approx(0.65**2), 0.05)


def test_drop_path_rises_as_timms_does(vit):
    network = new_network(vit, CLASSES, Recipe(tune="full", drop_path=0.1), seed=0)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in network.encoder.blocks]
    assert rates == [0.0, 0.1]
    assert vit.model.global_pool == "avg" and isinstance(vit.model.norm, nn.Identity)


def test_cosine_rises_and_falls_as_mae_counts(resnet):
    recipe = Recipe(optimizer="sgd", lr=0.4, schedule="cosine", warmup=2, min_lr=0.01)
    optimizer = make_optimizer(new_network(resnet, CLASSES, recipe, seed=0), recipe)
    rate = LearningRate(optimizer, recipe, steps=50, epoch=5)
    for step in range(50):
        rate.set(step)
        rise, share = 10, (step - 10) / 40
        expected = 0.4 * step / rise if step < rise else 0.01 + 0.39 * 0.5 * (1 + math.cos(math.pi * share))
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)


def test_layer_decay_scales_constant_and_cosine_rates(vit):
    recipe = Recipe(tune="full", optimizer="adamw", lr=1.0, layer_decay=0.5)
    for schedule in ("constant", "cosine"):
        optimizer = make_optimizer(new_network(vit, CLASSES, recipe, seed=0), recipe)
        rate = LearningRate(optimizer, Recipe(lr=1.0, schedule=schedule), steps=10, epoch=10)
        rate.set(0)
        assert sorted({group["lr"] for group in optimizer.param_groups}) == [0.125, 0.25, 0.5, 1.0]


@pytest.mark.parametrize("name", ["dalda", "datadream", "mae", "none"])
def test_transforms_depend_on_the_key_alone(name, resnet):
    transform = train_transform(Recipe(transform=name), resnet)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))

    def draw(*key):
        with seeded(*key):
            return transform(image)

    first = draw(0, 1)
    torch.rand(3), np.random.rand(2)
    assert torch.equal(draw(0, 1), first)
    assert first.shape == (3, 32, 32) and first.dtype == torch.float32
    others = [draw(0, k) for k in range(2, 8)]
    assert any(not torch.equal(other, first) for other in others) == (name != "none")


def test_test_images_are_squashed_or_cropped(resnet):
    wide = np.zeros((32, 96, 3), np.uint8)
    wide[:, :8], wide[:, -8:] = 255, 255  # white at both ends, which a centre crop does not show
    image = Image.fromarray(wide)
    squashed = test_transform(Recipe(transform="dalda"), resnet)(image)
    cropped = test_transform(Recipe(transform="datadream"), resnet)(image)
    assert squashed.max() > cropped.max() == cropped.min()


def test_named_recipes_make_networks_of_their_kind(clip, resnet, vit):
    for backbone in (clip, resnet, vit):
        network = new_network(backbone, CLASSES, named_recipe("bob", backbone.kind), seed=0)
        assert network(pixels()).shape == (2, 3)
