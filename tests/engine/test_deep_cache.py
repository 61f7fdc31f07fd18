"""The UNet cut in two: together the whole, apart DeepCache's approximation, the same as by hooks in diffusers' UNet."""

import pytest
import torch
from safetensors.torch import save_file

from fastgen.engine.build import build
from fastgen.engine.deep_cache import cut
from fastgen.engine.load import load_engine
from fastgen.engine.model import load_model
from fastgen.engine.model_files import find_sources
from fastgen.engine.parity import example_inputs
from fastgen.engine.spec import DEEP, FEATURE, SHALLOW, UNET, read_spec
from fastgen.engine.tensorrt_operators import check_graph
from fastgen.errors import EngineError
from fastgen.generate.deep_cache import CachedUNet
from tests.tiny_model import make_unet


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    """A LoRA of a layer of each part of the UNet."""
    generator, state = torch.Generator().manual_seed(0), {}
    for layer in ("up_blocks.1.resnets.1.conv1", "up_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"):
        weight = make_unet().get_submodule(layer).weight
        state[f"{layer}.lora_A.weight"] = torch.randn(2, *weight.shape[1:], generator=generator) * 0.1
        state[f"{layer}.lora_B.weight"] = torch.randn(weight.shape[0], 2, *[1] * (weight.ndim - 2), generator=generator)
    path = tmp_path_factory.mktemp("lora") / "x.safetensors"
    save_file(state, path)
    return f"x={path}@0.5"


@pytest.fixture(scope="module", params=["onnxruntime", "torch"])
def engine(request, tiny_model, lora, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param) / "e"
    options = {"backend": request.param, "lora": [lora], "batch": 4, "out": out, "say": lambda _: None}
    return load_engine(build(tiny_model, deep_cache=True, **options))


@pytest.fixture(scope="module")
def unet(tiny_model, lora):
    """The model's UNet in one piece, as a torch module."""
    from fastgen.engine.lora import parse_loras

    return load_model(find_sources(tiny_model, loras=parse_loras([lora]))).modules[UNET]


def steps_of(engine, steps=5, rows=3):
    """Inputs of the UNet at several steps: other latents and timesteps, the same conditions."""
    part = engine.spec.components[DEEP]
    first = example_inputs(part, rows=rows, vocabulary=9)
    for number in range(steps):
        generator = torch.Generator().manual_seed(number)
        sample = first["sample"] * (1 - number / steps) + torch.randn(first["sample"].shape, generator=generator) * 0.3
        yield {**first, "sample": sample, "timestep": torch.full((rows,), 900.0 - 100 * number)}


class Hooked:
    """DeepCache by hooks: the whole UNet runs, but its last layer is given the feature of an earlier step."""

    def __init__(self, unet, every):
        self._unet, self._every, self._step, self._feature = unet, every, 0, None
        self._channels = unet.unet.conv_in.out_channels

    def _swap(self, _, args):
        joined, time = args
        if self._step % self._every == 0:
            self._feature = joined[:, : -self._channels]
        return torch.cat([self._feature, joined[:, -self._channels :]], dim=1), time

    @torch.no_grad()
    def __call__(self, **tensors):
        hook = self._unet.unet.up_blocks[-1].resnets[-1].register_forward_pre_hook(self._swap)
        try:
            return self._unet(**tensors)
        finally:
            hook.remove()
            self._step += 1


def test_both_parts_together_are_the_unet(engine, unet):
    with torch.no_grad():
        for tensors in steps_of(engine):
            torch.testing.assert_close(engine.unet(**tensors), unet(**tensors), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_equals_deep_cache_by_hooks(engine, unet, every):
    cached, hooked = CachedUNet(engine, every=every), Hooked(unet, every)
    differ = []
    with torch.no_grad():
        for tensors in steps_of(engine):
            found = cached(**tensors)
            torch.testing.assert_close(found, hooked(**tensors), rtol=1e-4, atol=1e-4)
            differ.append((found - unet(**tensors)).abs().max().item() > 1e-3)
    assert differ == [number % every != 0 for number in range(5)]


def test_rows_do_not_see_each_other(engine):
    """Bit for bit, in both parts; a whole run through the cache, alone and among others."""
    together, alone = CachedUNet(engine, every=2), CachedUNet(engine, every=2)
    for tensors in steps_of(engine, rows=3):
        all_rows = together(**tensors)
        one = alone(**{name: value[1:2] for name, value in tensors.items()})
        assert torch.equal(all_rows[1:2], one)


def test_parts_share_one_copy_of_the_weights(unet):
    deep, shallow = cut(unet).values()
    assert deep.whole is shallow.whole is unet


def test_engine_json_says_what_it_is_and_another_flag_is_another_engine(tiny_model, engine, tmp_path):
    spec = engine.spec
    assert spec.deep_cache and UNET not in spec.components and spec.components.keys() >= {DEEP, SHALLOW}
    assert spec.components[SHALLOW].inputs[-1].name == FEATURE == spec.components[DEEP].output.name
    assert spec.parity[DEEP]["1"]["relative"] < 1e-3 and spec.parity[SHALLOW]["1"]["relative"] < 1e-3
    assert " --deep-cache " in f"{spec.build_command} "
    lines = []
    options = {"backend": "torch", "batch": 1, "out": tmp_path / "e", "say": lines.append}
    build(tiny_model, **options)
    build(tiny_model, deep_cache=True, **options)
    assert "other deep_cache" in "\n".join(lines) and read_spec(tmp_path / "e").deep_cache
    lines.clear()
    build(tiny_model, deep_cache=True, **options)
    assert len(lines) == 1 and "up to date" in lines[0]


def test_an_engine_in_one_piece_has_no_parts(tiny_engine):
    tensors = next(steps_of_plain(tiny_engine))
    with pytest.raises(EngineError, match="--deep-cache"):
        tiny_engine.unet_deep(tensors)


def steps_of_plain(engine):
    yield example_inputs(engine.spec.components[UNET], rows=1, vocabulary=9)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_could_take_both_graphs(tiny_model, tmp_path, precision):
    from fastgen.engine.components import describe
    from fastgen.engine.export import export_onnx
    from fastgen.engine.precision import lower

    modules = dict(load_model(find_sources(tiny_model)).modules)
    modules |= cut(modules.pop(UNET))
    parts = describe(modules, size=64)
    for name in (DEEP, SHALLOW):
        path = tmp_path / f"{name}.onnx"
        export_onnx(lower(modules[name], precision), parts[name], path)
        check_graph(path, parts[name], loop=True, precision=precision)
    sizes = [(tmp_path / f"{name}.onnx.data").stat().st_size for name in (DEEP, SHALLOW)]
    assert sizes[1] < sizes[0] / 3, "a part's file must not hold the weights of the other"
