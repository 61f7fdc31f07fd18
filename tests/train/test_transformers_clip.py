"""A CLIP of transformers, tuned with LoRA: logits against transformers' own forward and peft's own wrapping of it."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, CLIPModel

from fastgen.errors import FastgenError, ModelError
from fastgen.train.backbone import load_backbone
from fastgen.train.clip_lora import merge_lora
from fastgen.train.head import class_prompts
from fastgen.train.network import new_network, start_training
from fastgen.train.recipe import Recipe
from tests.tiny_hf_clip import make_tiny_hf_clip
from tests.tiny_resnet import make_tiny_resnet

CLASSES = ("cat", "red dog", "small blue bird")
LORA = Recipe(tune="lora", lora_dropout=0.0, lora_rank=4, lora_alpha=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_hf_clip(tmp_path_factory.mktemp("hf") / "clip")


@pytest.fixture(scope="module")
def backbone(folder):
    return load_backbone(f"transformers/tiny={folder}", device="cpu")


@pytest.fixture
def original(folder):
    """The model and the inputs as a user of transformers has them, padding and its mask included."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = tokenizer(class_prompts(CLASSES), padding="max_length", max_length=77, return_tensors="pt")
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return CLIPModel.from_pretrained(folder).eval(), {**texts, "pixel_values": pixels}


def randomise(model):
    """Give LoRA layers weights that depend on their order alone."""
    generator = torch.Generator().manual_seed(5)
    found = [(name, p) for name, p in model.named_parameters() if "lora_" in name]
    with torch.no_grad():
        for _, parameter in sorted(found, key=lambda item: ("vision" in item[0] or "visual" in item[0], item[0])):
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def test_it_knows_its_preprocessing_and_its_texts(backbone, original):
    model, inputs = original
    assert (backbone.kind, backbone.dim, backbone.size) == ("clip", 12, 32)
    assert backbone.mean == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4)
    with torch.no_grad():
        texts = model.get_text_features(inputs["input_ids"], inputs["attention_mask"])
        torch.testing.assert_close(backbone.encode_text(class_prompts(CLASSES)), texts, rtol=1e-4, atol=1e-5)
        images = model.get_image_features(inputs["pixel_values"])
    torch.testing.assert_close(backbone.encode(inputs["pixel_values"]), images, rtol=1e-4, atol=1e-5)


def test_before_training_the_logits_are_transformers_own(backbone, original):
    model, inputs = original
    network = new_network(backbone, CLASSES, LORA, seed=0).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            network(inputs["pixel_values"]), model(**inputs).logits_per_image, rtol=1e-4, atol=1e-4
        )


def test_with_lora_the_logits_are_those_of_peft_on_the_whole_model(backbone, original):
    model, inputs = original
    network = new_network(backbone, CLASSES, LORA, seed=0).eval()
    wrapped = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])).eval()
    names = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert len(names) == 2 * 2 * 2 * 2  # towers, layers, projections, A and B
    assert {name.rsplit(".self_attn.", 1)[1].split(".")[0] for name in names} == {"q_proj", "v_proj"}
    with torch.no_grad():
        before = network(inputs["pixel_values"])
    randomise(network)
    randomise(wrapped)
    with torch.no_grad():
        expected = wrapped(**inputs).logits_per_image
        torch.testing.assert_close(network(inputs["pixel_values"]), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before, expected, atol=0.1)


def test_lora_merges_into_the_weights_of_an_ordinary_clip_model(backbone, original):
    model, inputs = original
    network = new_network(backbone, CLASSES, LORA, seed=0).eval()
    randomise(network)
    with torch.no_grad():
        expected = network(inputs["pixel_values"])
    merge_lora(network.clip)
    names = {"visual.model": "vision_model", "visual.projection": "visual_projection"}
    names |= {"text.model": "text_model", "text.projection": "text_projection"}
    state = {}
    for key, value in network.clip.state_dict().items():
        start = ".".join(key.split(".")[:2])
        state[names.get(start, start) + key[len(start) :]] = value
    model.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits_per_image, expected, rtol=1e-4, atol=1e-4)


def test_a_step_changes_both_towers(backbone, original):
    _, inputs = original
    network = new_network(backbone, CLASSES, LORA, seed=0)
    start_training(network, LORA)
    network(inputs["pixel_values"])[:, 0].sum().backward()
    moved = [name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert {name.split(".")[1] for name in moved} == {"visual", "text"}


def test_other_heads_take_the_image_tower_alone(backbone, original):
    _, inputs = original
    for recipe in (Recipe(), Recipe(tune="full", head="linear"), Recipe(head="text"), Recipe(head="cosine")):
        network = new_network(backbone, CLASSES, recipe, seed=0)
        assert network(inputs["pixel_values"]).shape == (4, 3)
        assert not any("text" in name for name, p in network.named_parameters() if p.requires_grad)


def test_what_is_no_clip_or_lacks_weights_is_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    with pytest.raises(FastgenError, match="transformers/<owner>/<CLIP model>"):
        load_backbone("transformer/x")
    with pytest.raises(ModelError, match="is of type 'timm_wrapper'; allowed: a CLIPModel"):
        load_backbone(f"transformers/x={make_tiny_resnet(tmp_path / 'resnet')}")
    part = tmp_path / "part"
    part.mkdir()
    for file in folder.iterdir():
        (part / file.name).write_bytes(file.read_bytes())
    weights = load_file(part / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "vision" not in k}, part / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks the weights vision_model\.\S+ and \d+ more; give a folder with both"):
        load_backbone(f"transformers/part={part}")
