"""TensorRT on a real GPU: run with `pytest -m gpu`; everything that the CPU tests have to take on trust."""

import pytest
import torch

from fastgen.engine.build import build
from fastgen.engine.load import load_engine
from fastgen.engine.parity import compare, example_inputs
from fastgen.engine.spec import read_spec
from fastgen.engine.tensorrt_platform import require_tensorrt
from fastgen.errors import EngineError

pytestmark = pytest.mark.gpu
PARTS = ("text_encoder", "image_encoder", "unet", "vae_decoder", "vae_encoder")
BATCH = 4


@pytest.fixture(scope="module")
def engines(tiny_model, tmp_path_factory):
    """The same model for TensorRT and for torch."""
    try:
        require_tensorrt()
    except EngineError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("gpu")
    paths = [build(tiny_model, backend=name, batch=BATCH, out=folder / name) for name in ("tensorrt", "torch")]
    return [load_engine(path) for path in paths]


def inputs_of(engine, name, rows):
    inputs = example_inputs(engine.spec.components[name], rows=rows, vocabulary=len(engine.tokenizer))
    return {key: value.to(engine.device) for key, value in inputs.items()}


@pytest.mark.parametrize("rows", [1, BATCH, 9])
@pytest.mark.parametrize("name", PARTS)
def test_equals_torch(engines, name, rows):
    plan, reference = engines
    inputs = inputs_of(plan, name, rows)
    assert compare(plan.run(name, inputs), reference.run(name, inputs))["relative"] < 1e-3


@pytest.mark.parametrize("name", PARTS)
def test_a_row_does_not_depend_on_batch_size_or_place(engines, name):
    plan, _ = engines
    inputs = inputs_of(plan, name, 8)
    together = plan.run(name, inputs)
    for rows in ([0], [7], [3, 1], list(range(7, -1, -1))):
        part = plan.run(name, {key: value[rows] for key, value in inputs.items()})
        assert torch.equal(part, together[rows]), f"rows {rows}"


def test_calls_from_several_streams_keep_their_order(engines):
    """Results are the caller's, and inputs that come from another stream are finished before they are read."""
    plan, _ = engines
    inputs = inputs_of(plan, "unet", BATCH)
    expected = plan.run("unet", inputs).clone()
    results = []
    for _ in range(8):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            late = {key: value * 2 / 2 for key, value in inputs.items()}
            results.append(plan.run("unet", late))
    torch.cuda.synchronize()
    assert all(torch.equal(result, expected) for result in results)


def test_the_host_does_not_wait(engines):
    plan, _ = engines
    inputs = inputs_of(plan, "unet", BATCH)
    plan.run("unet", inputs)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")  # from here on, waiting raises
    try:
        results = [plan.run("unet", inputs) for _ in range(4)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(result, results[0]) for result in results)


def test_the_plan_says_where_it_is_from(engines):
    plan = engines[0].spec.plan
    assert plan["gpu"] == torch.cuda.get_device_name() and plan["tensorrt"].startswith("11.") and plan["tf32"] is False


def test_a_plan_of_another_version_is_refused_before_it_is_read(tiny_model, engines, tmp_path):
    from dataclasses import replace

    from fastgen.engine.tensorrt_backend import TensorRTBackend

    spec = replace(engines[0].spec, plan={**engines[0].spec.plan, "tensorrt": "11.0.0.1"})
    with pytest.raises(EngineError, match="built for TensorRT 11.0.0.1"):
        TensorRTBackend(tmp_path, spec)


def test_the_second_build_finds_the_kernel_times(engines, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGEN_CACHE", str(tmp_path / "cache"))
    lines: list[str] = []
    for name in ("a", "b"):
        path = build(tiny_model, backend="tensorrt", batch=2, out=tmp_path / name, say=lines.append)
        assert read_spec(path).parity["unet"]["2"]["relative"] < 1e-3
    assert len(list((tmp_path / "cache" / "tensorrt").iterdir())) == 1
    assert not any("timing cache" in line for line in lines)
