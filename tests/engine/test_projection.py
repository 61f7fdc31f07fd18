"""Which adapters are accepted, and what the resampler of plus adapters computes."""

import copy

import pytest
import torch

from fastgen.engine.adapters import ConditionedUNet, RowIPAttnProcessor, read_adapter
from fastgen.engine.projection import ImageResampler, read_projection
from fastgen.errors import ModelError
from tests.real_shapes import write_ip_adapter
from tests.tiny_model import TEXT_WIDTH, make_unet

HIDDEN = 40


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(1)
    return make_unet()


@pytest.fixture(scope="module", params=["plus.safetensors", "plus.bin"])
def plus_file(plain, tmp_path_factory, request):
    return write_ip_adapter(tmp_path_factory.mktemp("adapter") / request.param, plain, clip_dim=HIDDEN, plus=True)


def perceiver(state, x):
    """The resampler as its paper writes it, from the official weights."""

    def norm(name, y):
        return torch.nn.functional.layer_norm(y, y.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    def heads(y):
        return y.unflatten(-1, (-1, 64)).transpose(1, 2)

    x = x @ state["proj_in.weight"].T + state["proj_in.bias"]
    latents = state["latents"].expand(len(x), -1, -1)
    for i in range(4):
        queries = norm(f"layers.{i}.0.norm2", latents)
        both = torch.cat([norm(f"layers.{i}.0.norm1", x), queries], dim=1)
        key, value = (both @ state[f"layers.{i}.0.to_kv.weight"].T).chunk(2, dim=-1)
        scores = heads(queries @ state[f"layers.{i}.0.to_q.weight"].T) @ heads(key).transpose(2, 3) / 8
        seen = (scores.softmax(-1) @ heads(value)).transpose(1, 2).flatten(2)
        latents = latents + seen @ state[f"layers.{i}.0.to_out.weight"].T
        inner = torch.nn.functional.gelu(norm(f"layers.{i}.1.0", latents) @ state[f"layers.{i}.1.1.weight"].T)
        latents = latents + inner @ state[f"layers.{i}.1.3.weight"].T
    return norm("norm_out", latents @ state["proj_out.weight"].T + state["proj_out.bias"])


@torch.no_grad()
def test_plus_is_the_published_resampler(plain, plus_file):
    model = ConditionedUNet.from_state_dict(copy.deepcopy(plain), plus_file).eval()
    assert isinstance(model.image_proj, ImageResampler)
    assert (model.num_tokens, model.image_proj.clip_dim, model.token_dim) == (16, HIDDEN, TEXT_WIDTH)
    official = {k.removeprefix("image_proj."): v for k, v in read_adapter(plus_file).items() if k.startswith("image")}
    x = torch.randn(3, 17, HIDDEN, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(model.project(x), perceiver(official, x), rtol=1e-4, atol=1e-4)


def test_what_is_saved_of_a_plus_adapter_is_read_again(plain, plus_file):
    model = ConditionedUNet.from_state_dict(copy.deepcopy(plain), plus_file)
    state = model.adapter_state_dict()
    again = ConditionedUNet.from_state_dict(copy.deepcopy(plain), state).adapter_state_dict()
    assert again.keys() == state.keys() and all(torch.equal(again[key], state[key]) for key in state)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["proj.0.weight", "proj.2.weight", "proj.3.weight"], "it is a full-face adapter"),
        (["proj.0.weight", "proj.2.weight", "norm.weight"], "it is a FaceID adapter"),
        (["proj.0.weight", "perceiver_resampler.proj_in.weight", "norm.weight"], "it is a FaceID plus adapter"),
        (["something.weight"], r"its image_proj has the keys \['something.weight'\]. Use for example ip-adapter_sd15"),
        ([], r"has the keys \[\]"),
        (["latents"], "projection is damaged"),
    ],
)
def test_other_kinds_are_refused_by_name(keys, message):
    with pytest.raises(ModelError, match=message):
        read_projection(dict.fromkeys(keys, torch.zeros(2, 2)), TEXT_WIDTH)


@pytest.mark.parametrize("plus", [False, True])
def test_a_wrong_pairing_names_both_widths(plain, tmp_path, plus):
    path = write_ip_adapter(tmp_path / "ip.bin", plain, clip_dim=HIDDEN, plus=plus)
    other = copy.deepcopy(plain)
    other.register_to_config(cross_attention_dim=1024)
    message = "makes tokens of width 32, this UNet's cross-attention takes 1024 .768: Stable Diffusion 1.x, 1024: 2.x"
    with pytest.raises(ModelError, match=message):
        ConditionedUNet.from_state_dict(other, path)


@torch.no_grad()
def test_upcast_attention_of_the_config_is_kept():
    unet = make_unet()
    attn = next(m for name, m in unet.named_modules() if name.endswith("attn2")).bfloat16()
    generator = torch.Generator().manual_seed(3)
    x = (3 * torch.randn(1, 16, 64, generator=generator)).bfloat16()
    text = (3 * torch.randn(1, 77, TEXT_WIDTH, generator=generator)).bfloat16()
    condition = (text, torch.zeros(1, 4, TEXT_WIDTH), torch.zeros(1))
    plain = RowIPAttnProcessor(None)(attn, x, condition)
    attn.upcast_attention = True
    upcast = RowIPAttnProcessor(None)(attn, x, condition)
    query, key, value = (
        y.float().unflatten(2, (attn.heads, -1)).transpose(1, 2)
        for y in (attn.to_q(x), attn.to_k(text), attn.to_v(text))
    )
    scores = query @ key.transpose(2, 3) / (64 / attn.heads) ** 0.5
    exact = attn.to_out[0]((scores.softmax(-1) @ value).bfloat16().transpose(1, 2).flatten(2))
    assert upcast.dtype == torch.bfloat16
    torch.testing.assert_close(upcast, exact, rtol=1e-2, atol=1e-2)
    assert (upcast - exact).abs().sum() <= (plain - exact).abs().sum()
