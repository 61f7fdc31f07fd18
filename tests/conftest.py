"""Fixtures shared by all tests: one small random model and one engine of it per session."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random model with an IP-Adapter, about 4 MB; do not write into it."""
    from tests.tiny_model import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def tiny_engine_path(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Engine folder: onnxruntime, batch 4, 64x64 images; do not write into it."""
    from fastgen.engine.build import build

    return build(tiny_model, batch=4, out=tmp_path_factory.mktemp("engines") / "tiny", say=lambda _: None)


@pytest.fixture(scope="session")
def tiny_engine(tiny_engine_path: Path):
    """The loaded engine of `tiny_engine_path`."""
    from fastgen.engine.load import load_engine

    return load_engine(tiny_engine_path)
