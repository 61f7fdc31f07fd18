"""LoRAs fused at build equal the library's own forward pass with the LoRA switched on."""

import copy

import pytest
import torch

from fastgen.engine.lora import Lora, fuse_loras, parse_loras
from fastgen.errors import ModelError
from tests.tiny_model import TEXT_WIDTH, make_text_encoder, make_unet

TARGETS = {"unet": ["to_q", "to_k", "to_v", "to_out.0"], "text_encoder": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(3)
    return {"unet": make_unet(), "text_encoder": make_text_encoder().eval()}


@pytest.fixture(scope="module")
def call():
    generator = torch.Generator().manual_seed(4)
    sample = torch.randn(2, 8, 16, 16, generator=generator)
    text = torch.randn(2, 77, TEXT_WIDTH, generator=generator)
    ids = torch.randint(3, 100, (2, 77), generator=generator)
    return {
        "unet": lambda unet: unet(sample, torch.tensor([900, 5]), text, return_dict=False)[0],
        "text_encoder": lambda encoder: encoder(ids, return_dict=False)[0],
    }


def with_lora(module, name, *, seed):
    """A peft model around a copy of `module`, with random (not zero) LoRA weights."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS[name])
    model = get_peft_model(copy.deepcopy(module), config).eval()
    generator = torch.Generator().manual_seed(seed)
    for key, value in model.named_parameters():
        if "lora_" in key:
            value.data = 0.3 * torch.randn(value.shape, generator=generator)
    return model


def set_scale(model, scale):
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.set_scale("default", scale)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_fused_equals_peft(parts, call, tmp_path, scale):
    adapted = {name: with_lora(module, name, seed=i) for i, (name, module) in enumerate(parts.items())}
    for name, model in adapted.items():
        model.save_pretrained(tmp_path / "pets" / name)
        set_scale(model, scale)
    fused = copy.deepcopy(parts)
    fuse_loras([Lora(name="pets", path=tmp_path / "pets", scale=scale)], **fused)
    for name, model in adapted.items():
        expected = call[name](model.base_model.model)
        torch.testing.assert_close(call[name](fused[name]), expected, rtol=0, atol=2e-5)
        assert (expected - call[name](parts[name])).abs().max() > 1e-2
        assert fused[name].state_dict().keys() == parts[name].state_dict().keys()


@torch.no_grad()
def test_diffusers_file_equals_peft_folder(parts, call, tmp_path):
    from diffusers import StableDiffusionPipeline
    from peft import get_peft_model_state_dict

    adapted = {name: with_lora(module, name, seed=i) for i, (name, module) in enumerate(parts.items())}
    layers = {name: get_peft_model_state_dict(model) for name, model in adapted.items()}
    for model in adapted.values():
        set_scale(model, 1 * 4 / 6)  # the file has no alpha: it means alpha = rank
    clean = {name: {k.removeprefix("base_model.model."): v for k, v in d.items()} for name, d in layers.items()}
    StableDiffusionPipeline.save_lora_weights(
        tmp_path, unet_lora_layers=clean["unet"], text_encoder_lora_layers=clean["text_encoder"]
    )
    for path in (tmp_path, tmp_path / "pytorch_lora_weights.safetensors"):
        fused = copy.deepcopy(parts)
        fuse_loras([Lora(name="pets", path=path)], **fused)
        for name, model in adapted.items():
            expected = call[name](model.base_model.model)
            torch.testing.assert_close(call[name](fused[name]), expected, rtol=0, atol=2e-5)
            assert fused[name].state_dict().keys() == parts[name].state_dict().keys()


def test_two_loras_add_up(parts, tmp_path):
    for i, name in enumerate(("a", "b")):
        with_lora(parts["unet"], "unet", seed=i).save_pretrained(tmp_path / name)
    both, one, other = (copy.deepcopy(parts) for _ in range(3))
    a, b = (Lora(name=name, path=tmp_path / name, scale=0.5) for name in ("a", "b"))
    fuse_loras([a, b], **both)
    fuse_loras([a], **one)
    fuse_loras([b], **other)
    key = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    start, sums = parts["unet"].state_dict()[key], both["unet"].state_dict()[key]
    added = one["unet"].state_dict()[key] + other["unet"].state_dict()[key] - start
    torch.testing.assert_close(sums, added, rtol=0, atol=1e-6)


def test_a_lora_for_something_else_is_refused(parts, tmp_path):
    from safetensors.torch import save_file

    save_file({"unet.nothing.to_q.lora_A.weight": torch.zeros(4, 8)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="LoRA other"):
        fuse_loras([Lora(name="other", path=tmp_path / "other.safetensors")], **copy.deepcopy(parts))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="found none"):
        fuse_loras([Lora(name="other", path=tmp_path / "empty")], **copy.deepcopy(parts))


def test_arguments(tmp_path):
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"weights")
    at = tmp_path / "b@2.safetensors"
    at.write_bytes(b"weights")
    assert parse_loras([f"x={file}", f"y={file}@0.5", f"z={at}"]) == (
        Lora(name="x", path=file),
        Lora(name="y", path=file, scale=0.5),
        Lora(name="z", path=at),
    )
    for text, message in [
        ("x", "NAME=PATH"),
        ("x=", "NAME=PATH"),
        (f"x={tmp_path / 'none'}", "does not exist"),
        (f"x={file}@strong", "must be a number"),
        (f"x={file}@nan", "must be a number"),
    ]:
        with pytest.raises(ModelError, match=message):
            parse_loras([text])
    with pytest.raises(ModelError, match="twice"):
        parse_loras([f"x={file}", f"x={at}"])
