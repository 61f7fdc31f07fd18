"""ONNX Runtime on a GPU: tensors stay there, and the numbers are the CPU's.

The code differs from what test_ort_backend.py runs on the CPU by the device in `bind_input` and the wait for PyTorch's
stream before a run. Passed on an H200 with onnxruntime-gpu 1.31.1 and PyTorch 2.11; run it with
`pytest -m gpu tests/engine/test_ort_gpu.py`.
"""

import pytest
import torch

from fastgen.engine.build import build
from fastgen.engine.load import load_engine
from fastgen.engine.parity import example_inputs

pytestmark = pytest.mark.gpu

PARTS = ("text_encoder", "image_encoder", "unet", "vae_decoder", "vae_encoder")


@pytest.fixture(scope="module")
def engines(tiny_engine_path):
    """The same graphs on the GPU and on the CPU."""
    return [load_engine(tiny_engine_path, provider=provider) for provider in ("cuda", "cpu")]


def inputs_of(engine, name, rows):
    return example_inputs(engine.spec.components[name], rows=rows, vocabulary=len(engine.tokenizer))


def test_auto_takes_the_gpu_and_the_cpu_can_be_asked_for(tiny_engine_path, engines):
    assert [engine.device.type for engine in engines] == ["cuda", "cpu"]
    assert load_engine(tiny_engine_path).device == engines[0].device


@pytest.mark.parametrize("name", PARTS)
def test_the_gpu_gives_the_numbers_of_the_cpu_and_keeps_them(engines, name):
    inputs = inputs_of(engines[0], name, 6)
    got, expected = (engine.run(name, inputs) for engine in engines)
    assert got.device == engines[0].device
    torch.testing.assert_close(got.cpu(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", PARTS)
def test_a_row_does_not_depend_on_batch_size_or_place(engines, name):
    inputs = inputs_of(engines[0], name, 8)
    together = engines[0].run(name, inputs)
    for rows in ([0], [7], [3, 1], list(range(7, -1, -1))):
        part = engines[0].run(name, {key: value[rows] for key, value in inputs.items()})
        assert torch.equal(part, together[rows]), f"rows {rows}"


def test_work_that_pytorch_has_not_finished_is_waited_for(engines):
    """Inputs that are the end of a long queue on the GPU must be there when ONNX Runtime starts."""
    inputs = {key: value.to(engines[0].device) for key, value in inputs_of(engines[0], "unet", 4).items()}
    expected = engines[0].unet(**inputs)
    big = torch.randn(4096, 4096, device=engines[0].device)
    for _ in range(20):
        late = torch.zeros_like(inputs["sample"])
        for _ in range(10):
            big = torch.tanh(big @ big)
        late += inputs["sample"] + 0 * big[0, 0]
        assert torch.equal(engines[0].unet(**{**inputs, "sample": late}), expected)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_passes_its_gate_on_the_gpu(tiny_model, tmp_path, precision):
    path = build(tiny_model, precision=precision, batch=4, provider="cuda", out=tmp_path / "engine", say=print)
    assert "--provider cuda" in load_engine(path).spec.build_command
