"""ONNX Runtime on PyTorch's own memory, and where it computes; CUDA itself is in test_ort_gpu.py."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from fastgen.cli import main
from fastgen.engine.build import build
from fastgen.engine.load import load_engine
from fastgen.engine.ort_backend import CPU, CUDA, OrtBackend, rows_together, why_no_cuda
from fastgen.engine.parity import example_inputs
from fastgen.engine.spec import Component, TensorSpec, read_spec
from fastgen.errors import EngineError


@pytest.fixture(scope="module")
def backend(tiny_engine_path):
    return OrtBackend(tiny_engine_path, read_spec(tiny_engine_path), threads=1, provider="cpu")


@pytest.fixture
def no_gpu(monkeypatch):
    """A machine on which PyTorch finds none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def inputs_of(path, name, rows=4):
    return example_inputs(read_spec(path).components[name], rows=rows, vocabulary=30)


@pytest.mark.parametrize("name", ["text_encoder", "unet", "vae_decoder"])
def test_bound_memory_gives_what_a_plain_run_gives(backend, tiny_engine_path, name):
    inputs = inputs_of(tiny_engine_path, name)
    session = backend._programs[name]._session
    plain = session.run(None, {key: value.numpy() for key, value in inputs.items()})[0]
    assert torch.equal(backend(name, inputs), torch.from_numpy(plain))


def test_inputs_may_lie_in_any_order_and_need_a_gradient(backend, tiny_engine_path):
    inputs = inputs_of(tiny_engine_path, "unet")
    expected = backend("unet", inputs)
    strided = {key: value.mT.contiguous().mT if value.ndim > 1 else value for key, value in inputs.items()}
    assert not strided["sample"].is_contiguous()
    strided["sample"].requires_grad_()
    assert torch.equal(backend("unet", strided), expected)


def test_a_result_belongs_to_the_caller(backend, tiny_engine_path):
    inputs = inputs_of(tiny_engine_path, "vae_decoder")
    first = backend("vae_decoder", inputs)
    kept = first.clone()
    second = backend("vae_decoder", {key: value + 1 for key, value in inputs.items()})
    assert torch.equal(first, kept) and not torch.equal(first, second)


def test_the_cpu_can_be_asked_for(tiny_engine_path):
    engine = load_engine(tiny_engine_path, provider="cpu")
    assert engine.device == torch.device("cpu")
    assert all(p._session.get_providers() == [CPU] for p in engine._backend._programs.values())


def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused(tiny_engine_path, tiny_model, tmp_path, no_gpu):
    assert load_engine(tiny_engine_path).device == torch.device("cpu")
    for call in (
        lambda: load_engine(tiny_engine_path, provider="cuda"),
        lambda: build(tiny_model, provider="cuda", out=tmp_path / "engine", say=lambda line: None),
    ):
        with pytest.raises(EngineError, match="--provider cuda: .*; or take --provider cpu"):
            call()
    assert not (tmp_path / "engine").exists()


def module(*providers):
    return SimpleNamespace(get_available_providers=lambda: list(providers), __version__="9.9")


def test_the_refusal_says_what_is_missing(monkeypatch, no_gpu):
    assert "this ONNX Runtime (9.9) is built without CUDA" in why_no_cuda(module(CPU))
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "this PyTorch (" in why_no_cuda(module(CUDA, CPU))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "is visible here (CUDA_VISIBLE_DEVICES is ''); see what nvidia-smi says" in why_no_cuda(module(CUDA, CPU))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert why_no_cuda(module(CUDA, CPU)) == ""


def test_other_providers_and_backends_are_refused(tiny_engine_path, tiny_model, tmp_path):
    with pytest.raises(EngineError, match="provider: got 'rocm', allowed: auto, cpu, cuda"):
        load_engine(tiny_engine_path, provider="rocm")
    with pytest.raises(EngineError, match="is for engines of the backend onnxruntime, and this one is for torch"):
        build(tiny_model, backend="torch", provider="cpu", out=tmp_path / "engine", say=lambda line: None)


def test_run_takes_it_before_anything_is_made(tiny_engine_path, tmp_path, no_gpu):
    bank = tmp_path / "bank.jsonl"
    bank.write_text('{"fastgen_bank": 1, "name": "b", "classes": ["cat"]}\n{"class": "cat", "prompt": "x"}\n')
    words = ["run", "--bank", str(bank), "--engine", str(tiny_engine_path), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*words, "--provider", "cuda"])
    assert result.exit_code == 2 and "--provider cuda: " in result.output
    assert not (tmp_path / "out").exists()


def test_its_threads_stay_on_the_cores_of_the_process(tiny_engine_path):
    # as SLURM's tasks are kept: ONNX Runtime's own choice puts threads on the other cores
    program = f"""
import os
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
from fastgen.engine.load import load_engine
engine = load_engine({str(tiny_engine_path)!r}, provider="cpu")
cores = {{core for task in os.listdir("/proc/self/task") for core in os.sched_getaffinity(int(task))}}
print(cores == os.sched_getaffinity(0))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"], done.stdout + done.stderr


def test_pytorchs_threads_rest_while_ort_works_and_come_back(tiny_engine_path):
    engine = load_engine(tiny_engine_path, provider="cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError), engine.undisturbed():
            assert torch.get_num_threads() == 1
            raise KeyError
        assert torch.get_num_threads() == 2
        engine._backend.spins = False
        with engine.undisturbed():
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("shape", "batch", "rows"),
    [((3, 64, 64), 8, 8), ((3, 256, 256), 8, 2), ((3, 256, 256), 9, 1), ((3, 512, 512), 8, 1), ((77, 768), 64, 64)],
)
def test_large_images_are_worked_on_a_few_at_once(shape, batch, rows):
    image = TensorSpec(name="image", dtype="float32", shape=shape)
    latents = TensorSpec(name="latents", dtype="float32", shape=(4, 64, 64))
    assert rows_together(Component(inputs=(latents,), output=image), batch) == rows
    assert rows_together(Component(inputs=(image,), output=latents), batch) == rows


def test_gelu_is_one_operator_after_orts_optimiser(plain_graphs, tmp_path):
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "unet.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(plain_graphs / "unet.onnx"), options, providers=[CPU])
    kinds = [node.op_type for node in onnx.load(tmp_path / "unet.onnx", load_external_data=False).graph.node]
    assert "Gelu" in kinds and "Erf" not in kinds
