"""LoRAs fused at build equal the library's own forward pass with the LoRA switched on."""

import copy
from pathlib import Path

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


def random_layers(modules, *, seed):
    """name -> (down, up, alpha) of a few layers of each part: linear and convolution, ranks and alphas that differ."""
    generator = torch.Generator().manual_seed(seed)
    wanted = {
        "unet": ["to_q", "to_out.0", "ff.net.0.proj", "proj_in", "conv1", "time_emb_proj", "downsamplers.0.conv"],
        "text_encoder": ["q_proj", "fc1"],
    }
    found = {part: {} for part in modules}
    for part, module in modules.items():
        for name, layer in module.named_modules():
            if name.endswith(tuple(wanted[part])):
                rank = 2 + len(found[part]) % 3
                shape = layer.weight.shape
                down = 0.2 * torch.randn(rank, *shape[1:], generator=generator)
                up = 0.2 * torch.randn(shape[0], rank, *[1] * (len(shape) - 2), generator=generator)
                found[part][name] = down, up, None if len(found[part]) == 1 else 1.0 + len(found[part]) % 4
    return found


def write_kohya(path, layers):
    from safetensors.torch import save_file

    prefix = {"unet": "lora_unet_", "text_encoder": "lora_te_"}
    state = {}
    for part, own in layers.items():
        for name, (down, up, alpha) in own.items():
            key = prefix[part] + name.replace(".", "_")
            state |= {f"{key}.lora_down.weight": down.half(), f"{key}.lora_up.weight": up.half()}
            state |= {} if alpha is None else {f"{key}.alpha": torch.tensor(alpha)}
    save_file(state, path)
    return path


def test_kohya_alpha_and_rank_of_every_layer_count(parts, tmp_path):
    layers = random_layers(parts, seed=5)
    assert all(len(own) > 3 for own in layers.values())
    path = write_kohya(tmp_path / "style.safetensors", layers)
    fused = copy.deepcopy(parts)
    fuse_loras([Lora(name="style", path=path, scale=0.7)], **fused)
    for part, own in layers.items():
        before, after = parts[part].state_dict(), fused[part].state_dict()
        for name, (down, up, alpha) in own.items():
            factor = 0.7 * (1 if alpha is None else alpha / len(down))
            added = factor * up.half().float().flatten(1) @ down.half().float().flatten(1)
            key = f"{name}.weight"
            torch.testing.assert_close(after[key], before[key] + added.view_as(before[key]), rtol=0, atol=1e-5)
        same = [key for key in before if key.removesuffix(".weight") not in own]
        assert all(torch.equal(before[key], after[key]) for key in same)


@torch.no_grad()
def test_a_fused_convolution_is_the_sum_of_both_paths(parts):
    from fastgen.engine.lora import _fuse_layers
    from fastgen.engine.lora_file import LoraLayer

    name = "down_blocks.0.downsamplers.0.conv"
    fused = copy.deepcopy(parts["unet"])
    conv = parts["unet"].get_submodule(name)
    generator = torch.Generator().manual_seed(6)
    down, up = torch.randn(3, 32, 3, 3, generator=generator), torch.randn(32, 3, 1, 1, generator=generator)
    _fuse_layers(fused, {name: LoraLayer(down=down, up=up, alpha=2.0)}, 0.5)
    x = torch.randn(1, 32, 8, 8, generator=generator)
    low = torch.nn.functional.conv2d(x, down, stride=conv.stride, padding=conv.padding)
    expected = conv(x) + 0.5 * 2 / 3 * torch.nn.functional.conv2d(low, up)
    torch.testing.assert_close(fused.get_submodule(name)(x), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_config_in_a_diffusers_file_counts(parts, call, tmp_path):
    from diffusers import StableDiffusionPipeline
    from peft import get_peft_model_state_dict

    model = with_lora(parts["unet"], "unet", seed=7)  # rank 4, alpha 6: only the config says so
    layers = {k.removeprefix("base_model.model."): v for k, v in get_peft_model_state_dict(model).items()}
    config = model.peft_config["default"].to_dict()
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers, unet_lora_adapter_metadata=config)
    fused = copy.deepcopy(parts)
    fuse_loras([Lora(name="pets", path=tmp_path)], **fused)
    assert Lora(name="pets", path=tmp_path).to_json()["targets"] == ["unet"]
    torch.testing.assert_close(call["unet"](fused["unet"]), call["unet"](model.base_model.model), rtol=0, atol=2e-5)
    assert fused["unet"].state_dict().keys() == parts["unet"].state_dict().keys()


@pytest.mark.parametrize("below", ["", "unet"])
def test_what_lies_beside_the_weights_does_not_count(parts, tmp_path, below):
    with_lora(parts["unet"], "unet", seed=8).save_pretrained(tmp_path / below)
    lora = Lora(name="pets", path=tmp_path)
    start = lora.to_json()
    assert {Path(name).name for name in start["files"]} == {"adapter_config.json", "adapter_model.safetensors"}
    (tmp_path / "train.log").write_text("epoch 1")
    (tmp_path / below / "sample.png").write_bytes(b"a picture")
    assert lora.to_json() == start
    config = tmp_path / below / "adapter_config.json"
    config.write_text(config.read_text() + " ")
    assert lora.to_json()["files"] != start["files"]


OLD = "down_blocks.1.attentions.0.transformer_blocks.0.attn2"


@pytest.mark.parametrize(
    "key",
    [
        f"unet.{OLD}.to_out.0.lora_{{}}.weight",
        f"unet.{OLD}.to_out.0.lora.{{}}.weight",
        f"unet.{OLD}.processor.to_out_lora.{{}}.weight",
        f"{OLD}.processor.to_out_lora.{{}}.weight",
        f"lora_unet_{OLD.replace('.', '_')}_to_out_0.lora_{{}}.weight",
        "text_encoder.text_model.encoder.layers.1.self_attn.q_proj.lora_linear_layer.{}.weight",
        "text_encoder.text_model.encoder.layers.1.self_attn.to_q_lora.{}.weight",
        "lora_te1_text_model_encoder_layers_1_self_attn_q_proj.lora_{}.weight",
    ],
)
def test_every_naming_finds_its_layer(parts, tmp_path, key):
    from safetensors.torch import save_file

    from fastgen.engine.lora_file import read_lora

    sides = ("A", "B") if ".lora_{}" in key and key.startswith("unet.") else ("down", "up")
    width = 64 if "attn2" in key or OLD.replace(".", "_") in key else TEXT_WIDTH
    path = tmp_path / "a.safetensors"
    save_file({key.format(sides[0]): torch.ones(2, width), key.format(sides[1]): torch.ones(width, 2)}, path)
    ((part, found),) = read_lora(path, parts).items()
    ((name, layer),) = found.layers.items()
    expected = f"{OLD}.to_out.0" if part == "unet" else "text_model.encoder.layers.1.self_attn.q_proj"
    assert name == expected and layer.down.shape == (2, width) and layer.up.shape == (width, 2)
    target = {"unet": "unet", "text_encoder": "text"}[part]
    assert Lora(name="a", path=path).to_json()["targets"] == [target], "known without the model"


Q = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({f"{Q}.lora_down.weight": (2, 32), "lora_unet_input_blocks_1_1_proj_in.lora_down.weight": (2, 4)},
         r"1 of its 2 keys fit no layer of this model: lora_unet_input_blocks_1_1_proj_in\.lora_down\.weight"),
        ({f"{Q}.lora_down.weight": (2, 32)}, r"only one half: down_blocks\.1\..*\.attn2\.to_k"),
        ({f"{Q}.lora_down.weight": (2, 768), f"{Q}.lora_up.weight": (64, 2)},
         r"attn2\.to_k adds \(64, 768\) to \(64, 32\); use one made for this base model"),
        ({f"{Q}.hada_w1_a": (2, 32)}, "it is a LoHa file"),
        ({f"{Q}.lokr_w1": (2, 32)}, "it is a LoKr file"),
        ({f"{Q}.dora_scale": (2, 32)}, "it is a DoRA file"),
        ({f"{Q}.lora_mid.weight": (2, 2)}, "CP decomposition"),
        ({"lora_te2_text_model_x.lora_down.weight": (2, 2)}, "Stable Diffusion XL"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_name_what_is_wrong(parts, tmp_path, state, message):
    from safetensors.torch import save_file

    save_file({key: torch.zeros(shape) for key, shape in state.items()}, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=message):
        fuse_loras([Lora(name="x", path=tmp_path / "x.safetensors")], **copy.deepcopy(parts))


def test_a_peft_folder_with_keys_beside_its_config_is_refused(parts, tmp_path):
    from safetensors.torch import load_file, save_file

    with_lora(parts["unet"], "unet", seed=8).save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    state = load_file(path)
    more = {"base_model.model.conv_in.lora_A.weight": torch.zeros(4, 8, 3, 3)}
    save_file({**state, **more}, path)
    with pytest.raises(ModelError, match="do not fit this model together: .*conv_in.*lora_A"):
        fuse_loras([Lora(name="x", path=tmp_path)], **copy.deepcopy(parts))
    save_file(dict(list(state.items())[:-1]), path)
    with pytest.raises(ModelError, match="do not fit this model together: .*lora_B"):
        fuse_loras([Lora(name="x", path=tmp_path)], **copy.deepcopy(parts))
