"""Graphs rewritten for ONNX Runtime and OpenVINO: they are in the engines, and compute what the plain ones do."""

import collections

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from fastgen.engine.components import describe
from fastgen.engine.export import export_onnx
from fastgen.engine.fusion import CONTRIB, fuse_for_onnxruntime, fuse_for_openvino
from fastgen.engine.model import load_model
from fastgen.engine.model_files import find_sources
from fastgen.engine.ort_backend import CPU
from fastgen.engine.parity import example_inputs
from fastgen.engine.spec import Component, TensorSpec, read_spec

X = TensorSpec(name="x", dtype="float32", shape=(9, 32))


def kinds(path):
    return collections.Counter((node.domain, node.op_type) for node in ir.load(path).graph.all_nodes())


def run(path, inputs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=[CPU])
    return session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]


def exported(module, path):
    """Write a module of (B, 9, 32) tensors, rewritten for ONNX Runtime."""
    part = Component(inputs=(X,), output=TensorSpec(name="y", dtype="float32", shape=(9, 32)))
    export_onnx(module.eval(), part, path, rewrite=fuse_for_onnxruntime)
    return path


@pytest.mark.parametrize("name", ["unet", "image_encoder", "vae_decoder"])
def test_an_engines_graph_computes_what_the_plain_one_does(tiny_engine_path, plain_graphs, name):
    inputs = example_inputs(read_spec(tiny_engine_path).components[name], rows=4, vocabulary=30)
    fused, plain = (run(folder / f"{name}.onnx", inputs) for folder in (tiny_engine_path / "onnx", plain_graphs))
    assert np.abs(fused - plain).max() <= 2e-5 * np.abs(plain).max()


def test_all_attention_and_geglu_of_the_unet_is_fused(tiny_engine_path, plain_graphs):
    plain, fused = (kinds(folder / "unet.onnx") for folder in (plain_graphs, tiny_engine_path / "onnx"))
    assert fused["", "Softmax"] == fused["", "Erf"] == fused["", "Split"] == 0
    assert fused[CONTRIB, "MultiHeadAttention"] == plain["", "Softmax"] > 0
    assert fused[CONTRIB, "BiasGelu"] == plain["", "Split"] > 0
    assert {kind for domain, kind in fused if domain} == {"MultiHeadAttention", "BiasGelu"}
    assert not any(domain for domain, _ in plain)


def test_openvino_gets_standard_operators_and_no_split(tiny_model, plain_graphs, tmp_path):
    modules = load_model(find_sources(tiny_model)).modules
    part = describe(modules, size=64)["unet"]
    export_onnx(modules["unet"], part, tmp_path / "unet.onnx", rewrite=fuse_for_openvino)
    plain, found = (kinds(folder / "unet.onnx") for folder in (plain_graphs, tmp_path))
    blocks = plain["", "Split"]
    assert blocks > 0 and found["", "Split"] == 0
    assert found - plain == {("", "MatMul"): blocks, ("", "Add"): blocks}, "one more linear layer for every GEGLU"
    inputs = example_inputs(part, rows=3, vocabulary=30)
    found, plain = (run(folder / "unet.onnx", inputs) for folder in (tmp_path, plain_graphs))
    assert np.abs(found - plain).max() <= 1e-6 * np.abs(plain).max()


@pytest.mark.parametrize("name", ["unet", "image_encoder"])
def test_a_row_does_not_see_its_neighbours(tiny_engine_path, name):
    inputs = example_inputs(read_spec(tiny_engine_path).components[name], rows=4, vocabulary=30)
    other = {key: torch.cat([value[1:2], value[2:] + 1, value[:1] * 0.5]) for key, value in inputs.items()}
    path = tiny_engine_path / "onnx" / f"{name}.onnx"
    assert np.array_equal(run(path, inputs)[1], run(path, other)[0])


class Attend(nn.Module):
    """Attention of tokens to themselves; with a mask, over keys that are no tokens, without the way back, or last."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.linears = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))

    def forward(self, x):
        query, key, value = (linear(x).unflatten(2, (4, 8)).transpose(1, 2) for linear in self.linears)
        mask = torch.ones(9, 9).tril().log() if self.how == "mask" else None
        key = torch.relu(key) if self.how == "computed keys" else key
        out = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        out = (out if self.how == "no way back" else out.transpose(1, 2)).reshape(-1, 9, 32)
        return out if self.how == "output of the graph" else out + x


class Halves(nn.Module):
    """A linear layer, its output cut in two; gelu of a half."""

    def __init__(self, *, bias):
        super().__init__()
        self.linear = nn.Linear(32, 64, bias=bias)

    def forward(self, x):
        a, b = self.linear(x).chunk(2, dim=-1)
        return a * nn.functional.gelu(b)


@pytest.mark.parametrize("how", ["plain", "mask", "computed keys", "no way back", "output of the graph"])
def test_attention_that_is_written_otherwise_stays(tmp_path, how):
    module, x = Attend(how), torch.randn(3, 9, 32)
    path = exported(module, tmp_path / "a.onnx")
    assert kinds(path)[CONTRIB, "MultiHeadAttention"] == (how == "plain")
    np.testing.assert_allclose(run(path, {"x": x}), module(x).detach(), atol=1e-5)


@pytest.mark.parametrize(("options", "fused"), [({"bias": True}, 1), ({"bias": False}, 0)])
def test_only_a_linear_layer_with_bias_is_cut(tmp_path, options, fused):
    module, x = Halves(**options), torch.randn(3, 9, 32)
    path = exported(module, tmp_path / "a.onnx")
    assert kinds(path)[CONTRIB, "BiasGelu"] == fused and kinds(path)["", "Split"] == 1 - fused
    np.testing.assert_allclose(run(path, {"x": x}), module(x).detach(), atol=1e-5)
