"""A whole engine for TensorRT: the exported graphs are ones that it takes, and the build goes from model to images."""

import shutil
import sys

import onnx
import pytest
import torch

from fastgen.engine import export, tensorrt_platform
from fastgen.engine.build import _plan, build
from fastgen.engine.load import load_engine
from fastgen.engine.parity import example_inputs
from fastgen.engine.spec import read_spec
from fastgen.engine.tensorrt_operators import FLOATS, INTEGERS, check_graph, infer_edges
from fastgen.errors import EngineError
from tests.fake_tensorrt import GPU, FakeTensorRT


def test_every_exported_graph_is_one_that_tensorrt_takes(tiny_engine_path, plain_graphs):
    spec = read_spec(tiny_engine_path)
    for name, part in spec.components.items():
        path = plain_graphs / f"{name}.onnx"
        check_graph(path, part, loop=name == "unet")
        model = onnx.load(path, load_external_data=False)
        edges = infer_edges(model)
        used = {i for n in model.graph.node for i in (*n.input, *n.output) if i}
        assert used <= edges.keys(), "the type of every edge is known"
        floats = {edges[i].dtype for i in used} & FLOATS
        assert floats == {"FLOAT"} and {edges[i].dtype for i in used} <= {"FLOAT", "INT64"}
        free = [edges[i].shape[0] for i in used if not edges[i].constant and edges[i].dtype == "FLOAT"]
        assert set(free) <= {None, 1}, "one free axis, the batch, or a table that all rows share"
        if name == "unet":
            computed = [n.op_type for n in model.graph.node if edges[n.output[0]].dtype in INTEGERS]
            assert computed == [] and not any(n.op_type == "Shape" for n in model.graph.node)


def test_an_engine_is_built_compared_loaded_and_run(fake, tiny_model, tiny_engine, plain_graphs, tmp_path, monkeypatch):
    def copy(module, part, path, *, rewrite):  # exporting is what `plain_graphs` did
        assert rewrite is None, "other runtimes' operators are not for TensorRT"
        for name in (path.name, f"{path.name}.data"):
            shutil.copyfile(plain_graphs / name, path.with_name(name))

    monkeypatch.setattr(export, "export_onnx", copy)
    lines: list[str] = []
    path = build(tiny_model, backend="tensorrt", batch=4, out=tmp_path / "engine", say=lines.append)
    spec = read_spec(path)
    assert spec.backend == "tensorrt" and spec.plan == {
        "tensorrt": fake.__version__,
        "gpu": GPU.name,
        "compute_capability": "9.0",
        "driver": "580.1",
        "optimization_level": 3,
        "tf32": False,
    }
    assert {f"tensorrt/{name}.plan" for name in spec.components} <= spec.files.keys()
    assert spec.parity["unet"]["4"]["relative"] < 1e-4
    assert any("building the TensorRT plan of unet" in line for line in lines)

    engine = load_engine(path)
    inputs = example_inputs(spec.components["unet"], rows=6, vocabulary=10)
    together = engine.run("unet", inputs)
    torch.testing.assert_close(together, tiny_engine.run("unet", inputs))
    alone = engine.run("unet", {key: value[5:] for key, value in inputs.items()})
    assert torch.equal(alone, together[5:])

    lines.clear()
    build(tiny_model, backend="tensorrt", batch=4, out=path, say=lines.append)
    assert len(lines) == 1 and "up to date" in lines[0]
    monkeypatch.setattr(tensorrt_platform, "current_gpu", lambda: GPU._replace(compute_capability="12.0"))
    with pytest.raises(
        EngineError, match=r"compute capability 9.0 \(here: 12.0\).*--backend tensorrt --precision fp32"
    ):
        load_engine(path)


def test_another_tensorrt_is_another_plan(fake, trt, monkeypatch):
    before = _plan("tensorrt", False)
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRT(trt, version="11.9.0.1"))
    assert _plan("tensorrt", False) != before
