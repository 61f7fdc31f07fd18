"""Fixtures of the TensorRT tests."""

import sys

import pytest

from tests.tensorrt_bindings import real_tensorrt


@pytest.fixture(scope="session")
def trt(tmp_path_factory):
    """The real module; on most machines its libraries are stubs, so its objects cannot be made."""
    return real_tensorrt(tmp_path_factory.mktemp("tensorrt"))


@pytest.fixture
def fake(trt, monkeypatch, tmp_path):
    """A machine with TensorRT and a GPU, as far as our code can tell."""
    from fastgen.engine import tensorrt_backend, tensorrt_build, tensorrt_platform
    from tests.fake_tensorrt import GPU, FakeStream, FakeTensorRT

    module = FakeTensorRT(trt)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(tensorrt_platform, "current_gpu", lambda: GPU)
    monkeypatch.setattr(tensorrt_build, "current_gpu", lambda: GPU)
    monkeypatch.setattr(tensorrt_backend, "CudaStream", FakeStream)
    monkeypatch.setenv("FASTGEN_CACHE", str(tmp_path / "cache"))
    return module


@pytest.fixture(scope="session")
def plain_graphs(tiny_model, tmp_path_factory):
    """Folder of the tiny model's graphs as TensorRT gets them, without ONNX Runtime's own operators."""
    from fastgen.engine.components import describe
    from fastgen.engine.export import export_onnx
    from fastgen.engine.model import load_model
    from fastgen.engine.model_files import find_sources

    folder = tmp_path_factory.mktemp("graphs")
    modules = load_model(find_sources(tiny_model)).modules
    for name, part in describe(modules, size=64).items():
        export_onnx(modules[name], part, folder / f"{name}.onnx")
    return folder
