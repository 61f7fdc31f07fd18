"""The per-row IP-Adapter UNet against diffusers' own, and as something to train."""

import copy

import pytest
import torch

from fastgen.engine.adapters import ConditionedUNet, read_adapter
from fastgen.errors import ModelError
from tests.tiny_model import IMAGE_WIDTH, TEXT_WIDTH, make_unet, write_ip_adapter

ROWS = 3


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(1)
    return make_unet()


@pytest.fixture(scope="module")
def adapter_file(tmp_path_factory):
    return write_ip_adapter(tmp_path_factory.mktemp("adapter") / "ip.safetensors")


@pytest.fixture(scope="module")
def ours(plain, adapter_file):
    return ConditionedUNet.from_state_dict(copy.deepcopy(plain), adapter_file).eval()


@pytest.fixture(scope="module")
def theirs(plain, adapter_file):
    """diffusers' UNet with the same adapter, as load_ip_adapter leaves it."""
    unet = copy.deepcopy(plain)
    state = {"image_proj": {}, "ip_adapter": {}}
    for key, value in read_adapter(adapter_file).items():
        part, _, rest = key.partition(".")
        state[part][rest] = value
    unet._load_ip_adapter_weights([state])
    return unet.eval()


@pytest.fixture(scope="module")
def inputs():
    """Both halves of classifier-free guidance: the first ROWS rows are unconditional."""
    generator = torch.Generator().manual_seed(2)
    sample = torch.randn(ROWS, 8, 16, 16, generator=generator)
    return {
        "sample": torch.cat([sample, sample]),
        "timestep": torch.tensor([958, 33, 1] * 2),
        "text_embeds": torch.randn(2 * ROWS, 77, TEXT_WIDTH, generator=generator),
        "clip_embeds": torch.cat([torch.zeros(ROWS, IMAGE_WIDTH), torch.randn(ROWS, IMAGE_WIDTH, generator=generator)]),
    }


def predict(model, inputs, ip_scale, **changed):
    values = {**inputs, **changed}
    tokens = model.project(values["clip_embeds"])
    return model(values["sample"], values["timestep"], values["text_embeds"], tokens, ip_scale)


def predict_theirs(unet, inputs, scale):
    for processor in unet.attn_processors.values():
        if hasattr(processor, "to_k_ip"):
            processor.scale = [scale]
    condition = {"image_embeds": [inputs["clip_embeds"][:, None]]}
    text = inputs["text_embeds"]
    return unet(inputs["sample"], inputs["timestep"], text, added_cond_kwargs=condition).sample


@torch.no_grad()
@pytest.mark.parametrize("scale", [0.0, 0.1, 0.37, 0.9, 1.0])
def test_equals_diffusers_in_both_guidance_halves(ours, theirs, inputs, scale):
    got = predict(ours, inputs, torch.full((2 * ROWS,), scale))
    torch.testing.assert_close(got, predict_theirs(theirs, inputs, scale), rtol=0, atol=1e-5)


@torch.no_grad()
def test_every_row_has_its_own_lambda(ours, theirs, inputs):
    scales = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    got = predict(ours, inputs, torch.tensor(scales))
    for i, scale in enumerate(scales):
        torch.testing.assert_close(got[i], predict_theirs(theirs, inputs, scale)[i], rtol=0, atol=1e-5)
    assert (got - predict(ours, inputs, torch.tensor(scales[::-1]))).abs().flatten(1).amax(1).min() > 1e-3


@torch.no_grad()
def test_lambda_zero_is_the_text_only_unet(plain, ours, inputs):
    text_only = plain(inputs["sample"], inputs["timestep"], inputs["text_embeds"]).sample
    torch.testing.assert_close(predict(ours, inputs, torch.zeros(2 * ROWS)), text_only, rtol=0, atol=1e-6)


@torch.no_grad()
def test_tokens_of_no_image_are_projected_zeros_and_count(ours, inputs):
    scale = torch.full((2 * ROWS,), 0.8)
    tokens = ours.project(inputs["clip_embeds"])
    assert tokens.shape == (2 * ROWS, 4, TEXT_WIDTH)
    assert tokens[0].abs().max() > 0.1
    with_zeros = ours(inputs["sample"], inputs["timestep"], inputs["text_embeds"], tokens * 0, scale)
    assert (with_zeros[0] - predict(ours, inputs, scale)[0]).abs().max() > 1e-3


def test_gradients_reach_adapter_lambda_and_unet(plain, inputs):
    model = ConditionedUNet.new(copy.deepcopy(plain), num_tokens=4, clip_dim=IMAGE_WIDTH)
    model.train()
    scale = torch.rand(2 * ROWS, requires_grad=True)
    predict(model, inputs, scale).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert scale.grad is not None and (scale.grad != 0).all()


def test_new_adapter_starts_from_the_text_projections(plain):
    model = ConditionedUNet.new(copy.deepcopy(plain), clip_dim=IMAGE_WIDTH)
    state = model.state_dict()
    attn = "unet.up_blocks.0.attentions.0.transformer_blocks.0.attn2"
    layers = [n for n in plain.attn_processors if n.endswith("attn2.processor")]
    key = 2 * layers.index(attn.removeprefix("unet.") + ".processor") + 1
    assert torch.equal(state[f"ip_adapter.{key}.to_k_ip.weight"], state[f"{attn}.to_k.weight"])
    assert torch.equal(state[f"ip_adapter.{key}.to_v_ip.weight"], state[f"{attn}.to_v.weight"])


def test_adapter_state_has_the_official_layout(ours, plain, adapter_file, tmp_path):
    official = read_adapter(adapter_file)
    state = ours.adapter_state_dict()
    assert state.keys() == official.keys()
    assert all(torch.equal(state[key], official[key]) for key in official)
    assert ours.unet.state_dict().keys() == plain.state_dict().keys()
    nested = {"image_proj": {}, "ip_adapter": {}}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        nested[part][rest] = value
    torch.save(nested, tmp_path / "ip.bin")
    again = ConditionedUNet.from_state_dict(copy.deepcopy(plain), tmp_path / "ip.bin").adapter_state_dict()
    assert all(torch.equal(again[key], official[key]) for key in official)


@torch.no_grad()
def test_without_adapter_image_inputs_are_ignored(plain, inputs):
    model = ConditionedUNet(copy.deepcopy(plain))
    tokens = torch.randn(2 * ROWS, 4, TEXT_WIDTH)
    got = model(inputs["sample"], inputs["timestep"], inputs["text_embeds"], tokens, torch.ones(2 * ROWS))
    text_only = plain(inputs["sample"], inputs["timestep"], inputs["text_embeds"]).sample
    torch.testing.assert_close(got, text_only, rtol=0, atol=1e-6)
    with pytest.raises(ModelError, match="no IP-Adapter"):
        model.project(torch.zeros(1, IMAGE_WIDTH))


def test_adapters_that_do_not_fit_are_refused(plain, adapter_file, tmp_path):
    state = read_adapter(adapter_file)
    missing = {key: value for key, value in state.items() if key != "ip_adapter.3.to_v_ip.weight"}
    with pytest.raises(ModelError, match=r"ip_adapter\.3\.to_v_ip\.weight is missing"):
        ConditionedUNet.from_state_dict(copy.deepcopy(plain), missing)
    wide = {**state, "ip_adapter.1.to_k_ip.weight": torch.zeros(64, 2 * TEXT_WIDTH)}
    with pytest.raises(ModelError, match=r"has shape \(64, 64\), the UNet needs \(64, 32\)"):
        ConditionedUNet.from_state_dict(copy.deepcopy(plain), wide)
    with pytest.raises(ModelError, match="does not exist"):
        read_adapter(tmp_path / "none.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="cannot be read as weights"):
        read_adapter(tmp_path / "broken.safetensors")


def test_code_in_a_bin_file_does_not_run(plain, tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit('ran')",))

    (tmp_path / "evil.bin").write_bytes(pickle.dumps({"image_proj": Evil()}, protocol=2))
    with pytest.raises(ModelError, match="cannot be read as weights"):
        read_adapter(tmp_path / "evil.bin")


def test_sdxl_like_unets_are_refused():
    unet = make_unet()
    unet.register_to_config(addition_embed_type="text_time")
    with pytest.raises(ModelError, match="addition_embed_type"):
        ConditionedUNet(unet)
