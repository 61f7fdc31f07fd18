"""OpenVINO: the model's numbers in float32 and bf16, rows that do not see each other, and what is refused."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from fastgen.engine.build import build
from fastgen.engine.load import load_engine
from fastgen.engine.model import load_model
from fastgen.engine.model_files import find_sources
from fastgen.engine.openvino_backend import DEVICE
from fastgen.engine.parity import PSNR_FLOOR, compare, example_inputs
from fastgen.engine.spec import read_spec
from fastgen.errors import EngineError
from fastgen.generate.batch import complete_row
from fastgen.generate.run import generate
from fastgen.records import Row

openvino = pytest.importorskip("openvino")
PARTS = ("text_encoder", "image_encoder", "unet", "vae_decoder", "vae_encoder")


def has_bf16() -> bool:
    return "BF16" in openvino.Core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")


@pytest.fixture(scope="module")
def paths(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("openvino")
    precisions = ["fp32", *(["bf16"] if has_bf16() else [])]
    options = {"backend": "openvino", "batch": 4, "say": lambda _: None}
    return {p: build(tiny_model, precision=p, out=folder / p, **options) for p in precisions}


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def engine(request, paths):
    if request.param not in paths:
        pytest.skip("this CPU has no bf16 instructions")
    return load_engine(paths[request.param])


def test_the_engine_holds_the_graphs_rewritten_for_openvino(paths):
    for path in paths.values():
        kinds = {node.op_type for node in onnx.load(path / "onnx" / "unet.onnx", load_external_data=False).graph.node}
        assert "Split" not in kinds and "Softmax" in kinds


def inputs_of(engine, name, rows):
    return example_inputs(engine.spec.components[name], rows=rows, vocabulary=len(engine.tokenizer))


@torch.no_grad()
@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("rows", [1, 9])
def test_equals_the_model(engine, tiny_model, name, rows):
    inputs = inputs_of(engine, name, rows)
    expected = load_model(find_sources(tiny_model)).modules[name](**inputs)
    found = engine.run(name, inputs)
    assert found.dtype == torch.float32
    if engine.spec.precision == "fp32":
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    else:
        assert PSNR_FLOOR["bf16"] < compare(found, expected)["psnr_db"] < 80, "bf16, and no float32 in its name"


@pytest.mark.parametrize("name", PARTS)
def test_a_row_does_not_depend_on_batch_size_or_place(engine, name):
    inputs = inputs_of(engine, name, 8)
    together = engine.run(name, inputs)
    for rows in ([0], [7], [3, 1], list(range(7)), list(range(7, -1, -1)), [2] * 5):
        part = engine.run(name, {key: value[rows] for key, value in inputs.items()})
        assert torch.equal(part, together[rows]), f"rows {rows}"


@pytest.mark.parametrize("name", ["unet", "vae_decoder"])
def test_threads_change_no_bit(paths, name):
    for path in paths.values():
        one, two = (load_engine(path, threads=threads) for threads in (1, 2))
        inputs = inputs_of(one, name, 5)
        assert torch.equal(one.run(name, inputs), two.run(name, inputs))


def test_another_process_draws_the_same_bits(paths):
    """A rerun after kill -9 has to: nothing is chosen by a race when a graph is compiled."""
    program = """
import hashlib, sys
from fastgen.engine.load import load_engine
from fastgen.engine.parity import example_inputs
engine = load_engine(sys.argv[1])
inputs = example_inputs(engine.spec.components["unet"], rows=3, vocabulary=len(engine.tokenizer))
print(hashlib.sha256(engine.run("unet", inputs).numpy().tobytes()).hexdigest())
"""
    for path in paths.values():
        words = [sys.executable, "-c", program, str(path)]
        found = {subprocess.run(words, capture_output=True, text=True, check=True).stdout for _ in range(2)}
        assert len(found) == 1


def test_engines_share_one_core(paths, monkeypatch):
    load_engine(paths["fp32"])
    monkeypatch.setattr(openvino, "Core", lambda: pytest.fail("a second Core"))
    load_engine(paths["fp32"])


def test_a_result_belongs_to_the_caller(engine):
    inputs = inputs_of(engine, "vae_decoder", 4)
    first = engine._backend("vae_decoder", inputs)
    kept = first.clone()
    second = engine._backend("vae_decoder", {key: value + 1 for key, value in inputs.items()})
    assert torch.equal(first, kept) and not torch.equal(first, second)


def test_images_are_those_of_onnx_runtime(engine, tiny_engine):
    def images(own):
        rows = [Row.from_json({"id": str(i), "class": "a", "prompt": "a cat", "seed": i}, None) for i in range(3)]
        made = [complete_row(replace(row, steps=4), own.spec, own.scheduler_config) for row in rows]
        return np.stack([sample.image for sample in generate(made, own, None)]).astype(int)

    difference = np.abs(images(engine) - images(tiny_engine))
    assert difference.max() <= (1 if engine.spec.precision == "fp32" else 40)


def test_graphs_are_plain_onnx_in_float32(paths):
    for path in paths.values():
        for file in (path / "onnx").glob("*.onnx"):
            graph = onnx.load(file, load_external_data=False).graph
            assert {node.domain for node in graph.node} <= {"", "ai.onnx"}
            assert not {tensor.data_type for tensor in graph.initializer} & {onnx.TensorProto.BFLOAT16}


def test_it_is_part_of_name_versions_and_command(paths):
    spec = read_spec(paths["fp32"])
    assert (spec.backend, spec.versions["openvino"]) == ("openvino", openvino.__version__.split("-")[0])
    assert "--backend openvino" in spec.build_command and "onnxruntime" not in spec.versions


def test_fp16_and_a_provider_are_refused(tiny_model, tmp_path):
    with pytest.raises(EngineError, match="precision fp16: .* fp32 and bf16"):
        build(tiny_model, backend="openvino", precision="fp16", out=tmp_path / "e")
    with pytest.raises(EngineError, match="openvino, which computes on the CPU: leave it out"):
        build(tiny_model, backend="openvino", provider="cpu", out=tmp_path / "e")
    assert list(tmp_path.iterdir()) == []


def test_bf16_is_refused_where_the_cpu_lacks_it(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(openvino.Core, "get_property", lambda self, device, name: ["FP32", "INT8"])
    with pytest.raises(EngineError, match="this CPU has no instructions for it .*--precision fp32"):
        build(tiny_model, backend="openvino", precision="bf16", out=tmp_path / "e")


def test_without_openvino_it_says_what_to_install(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineError, match="pip install openvino"):
        build(tiny_model, backend="openvino", out=tmp_path / "e")


def test_its_threads_stay_on_the_cores_of_the_process(paths):
    program = f"""
import os
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
from fastgen.engine.load import load_engine
engine = load_engine({str(paths["fp32"])!r})
cores = {{core for task in os.listdir("/proc/self/task") for core in os.sched_getaffinity(int(task))}}
print(cores == os.sched_getaffinity(0))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"], done.stdout + done.stderr
