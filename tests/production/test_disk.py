"""A run whose images cannot fit is refused before the first one."""

import math
import os

import pytest

from fastgen.capacity import GIB
from fastgen.errors import OutputError
from fastgen.production import bank_check, disk
from fastgen.production.run import run
from fastgen.shards.verify import verify
from tests.fake_engine import FakeEngine
from tests.toy_bank import write_bank

ROWS = 13
LEAST = ROWS * 32 * 32 * 3 // 2
"""Bytes that 13 images of 32 x 32 need at least."""


@pytest.fixture
def bank(tmp_path):
    return write_bank(tmp_path)


@pytest.fixture
def free(monkeypatch):
    """Call it with a number of bytes: only so much is free from now on."""
    return lambda count: monkeypatch.setattr(disk, "free_disk", lambda path: count)


def test_too_little_is_an_error_and_enough_is_not(bank, tmp_path, free):
    engine, out = FakeEngine(), tmp_path / "out"
    free(LEAST - 1)
    with pytest.raises(OutputError) as error:
        run(bank, engine=engine, out=out, quiet=True)
    assert "about 0.019 MiB are needed for 13 images of 32 x 32 pixels, 0.019 MiB are free" in str(error.value)
    assert "another disk with --out" in str(error.value) and error.value.exit_code == 2
    assert engine.calls == [] and os.listdir(out / "shards") == []
    free(LEAST)
    assert run(bank, engine=engine, out=out, quiet=True).complete and verify(out) == []


def test_a_finished_run_needs_nothing(bank, tmp_path, free):
    run(bank, engine=FakeEngine(), out=tmp_path / "out", quiet=True)
    free(0)
    assert run(bank, engine=FakeEngine(), out=tmp_path / "out", quiet=True).made == 0


def test_shards_that_are_there_say_how_large_a_row_is(bank, tmp_path, free):
    out = tmp_path / "out"
    run(bank, engine=FakeEngine(), out=out, shard_size=5, quiet=True)
    first, second, last = sorted((out / "shards").iterdir())
    last.unlink()
    row = (first.stat().st_size + second.stat().st_size) / 10
    assert row > 32 * 32 * 3 * disk.GZIP
    free(math.ceil(3 * row) - 1)
    with pytest.raises(OutputError, match="for 3 images"):
        run(bank, engine=FakeEngine(), out=out, shard_size=5, quiet=True)
    free(math.ceil(3 * row))
    assert run(bank, engine=FakeEngine(), out=out, shard_size=5, quiet=True).made == 3


def test_the_other_ranks_share_the_disk(bank, tmp_path, free):
    out = tmp_path / "out"
    free(LEAST - 1)
    with pytest.raises(OutputError, match="for 13 images"):
        run(bank, engine=FakeEngine(), out=out, rank=0, world=2, shard_size=2, quiet=True)
    free(GIB)
    run(bank, engine=FakeEngine(), out=out, rank=1, world=2, shard_size=2, quiet=True)
    free(7 * LEAST // ROWS - 1)
    with pytest.raises(OutputError, match="for 7 images"):
        run(bank, engine=FakeEngine(), out=out, rank=0, world=2, shard_size=2, quiet=True)


@pytest.mark.parametrize(("limit", "rows"), [(None, 7), (5, 5)])
def test_a_long_bank_has_at_least_an_image_a_row(bank, tmp_path, free, monkeypatch, limit, rows):
    monkeypatch.setattr(bank_check, "AT_ONCE", 3)
    engine = FakeEngine()
    free(100)
    with pytest.raises(OutputError, match=f"for {rows} images"):
        run(bank, engine=engine, out=tmp_path / "out", limit=limit, quiet=True)
    assert engine.calls == []
