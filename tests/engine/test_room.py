"""What a build needs is known from headers alone, and a build that cannot fit is refused before it starts."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastgen.engine import room
from fastgen.engine.build import build
from fastgen.engine.model import load_model
from fastgen.engine.model_files import find_sources
from fastgen.engine.room import Options, count_weights, disk_needed, memory_needed
from fastgen.engine.spec import read_spec
from fastgen.errors import EngineError
from tests.ldm_checkpoint import write_checkpoint
from tests.real_shapes import write_model

GIB = 1 << 30
TINY = Options(backend="onnxruntime", precision="fp32", batch=8, size=64, on_gpu=False)


@pytest.fixture(scope="module")
def sources(tiny_model):
    return find_sources(tiny_model)


@pytest.fixture
def free(monkeypatch):
    """Call it with bytes of memory and of disk space: only so much is free from now on."""

    def only(memory=64 * GIB, disk=64 * GIB):
        monkeypatch.setattr(room, "free_memory", lambda: memory)
        monkeypatch.setattr(room, "free_disk", lambda path: disk)

    return only


def refusal(tiny_model, out, **options):
    lines = []
    with pytest.raises(EngineError) as error:
        build(tiny_model, out=out, say=lines.append, **options)
    assert not out.exists() and list(out.parent.glob(".*")) == [] and lines == [], "before anything is loaded"
    return str(error.value)


def test_weights_are_counted_as_they_are_loaded(sources):
    model = load_model(sources)
    loaded = {id(p): p.numel() for module in model.modules.values() for p in module.parameters()}
    assert count_weights(sources) == pytest.approx(sum(loaded.values()), rel=0.01)


def test_half_precision_files_count_the_same(tmp_path):
    full, half = (
        find_sources(write_model(tmp_path / str(is_half), "sd15", scale=10, half=is_half)) for is_half in (False, True)
    )
    assert count_weights(full) == count_weights(half) > 1_000_000


def test_a_checkpoint_counts_what_is_loaded_of_it(tmp_path):
    folder = write_model(tmp_path / "narrow", "sd15", scale=10)
    path = write_checkpoint(tmp_path / "painter.safetensors", folder)
    whole = count_weights(find_sources(path, config=folder))
    assert whole == pytest.approx(count_weights(find_sources(folder)), rel=0.01)
    state = load_file(path)
    save_file({**state, "model_ema.decay": torch.zeros(10**6)}, path)
    assert count_weights(find_sources(path, config=folder)) == whole


def test_the_disk_estimate_is_what_the_engine_takes(sources, tiny_engine_path):
    size = sum(path.stat().st_size for path in tiny_engine_path.rglob("*") if path.is_file())
    assert size <= disk_needed(sources, TINY) <= size + room.GRAPHS
    assert read_spec(tiny_engine_path).backend == TINY.backend


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({"batch": 16}, True),
        ({"size": 128}, True),
        ({"precision": "fp16"}, True),
        ({"backend": "torch"}, False),
        ({"on_gpu": True}, False),
    ],
)
def test_what_memory_depends_on(sources, changes, more):
    before, after = memory_needed(sources, TINY), memory_needed(sources, replace(TINY, **changes))
    assert (after > before) is more and after != before


def test_too_little_memory_says_what_needs_less(tiny_model, sources, tmp_path, free):
    needed = memory_needed(sources, TINY)
    free(memory=needed - 1)
    message = refusal(tiny_model, tmp_path / "engine")
    assert message.startswith("building tiny needs about 8") and " MiB of memory, 8" in message
    assert "are free: --batch 1 needs 8" in message and "--backend torch needs 8" in message
    free(memory=GIB // 2)
    assert "are free: build on a machine with more and copy the folder" in refusal(tiny_model, tmp_path / "engine")


def test_too_little_disk_says_what_needs_less(tiny_model, sources, tmp_path, free):
    free(disk=disk_needed(sources, TINY) - 1)
    message = refusal(tiny_model, tmp_path / "engine")
    assert "of disk space, " in message and "--precision fp16 needs " in message
    assert message.endswith("or take another disk with --out")
    free(disk=1000, memory=1000)
    message = refusal(tiny_model, tmp_path / "engine")
    assert "of memory, " in message and "; and about " in message and "fp16" not in message


def test_what_fits_is_built_and_what_is_built_needs_nothing(tiny_model, sources, tmp_path, free):
    options = Options(backend="torch", precision="fp32", batch=2, size=64, on_gpu=torch.cuda.is_available())
    free(memory=memory_needed(sources, options), disk=disk_needed(sources, options))
    words = {"backend": "torch", "batch": 2, "out": tmp_path / "engine", "say": lambda line: None}
    build(tiny_model, **words)
    free(memory=0, disk=0)
    assert build(tiny_model, **words) == tmp_path / "engine"


def test_a_system_that_does_not_say_how_much_is_free_is_trusted(tiny_model, tmp_path, free):
    free(memory=None)
    words = {"backend": "torch", "batch": 1, "out": tmp_path / "engine", "say": lambda line: None}
    assert build(tiny_model, **words).is_dir()
