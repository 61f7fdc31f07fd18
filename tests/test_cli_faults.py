"""The command line when things break: repair, regenerate, a second Ctrl-C, a dying disk, a full memory."""

import errno
import os
import signal

import pytest
from click.testing import CliRunner

from fastgen.cli import main
from fastgen.shards import verify as verify_module
from tests.shards.shard_samples import make_output


@pytest.fixture
def layout(tmp_path):
    return make_output(tmp_path / "out", rows=10, shard_size=4)


def fastgen(*words):
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def test_repair_says_what_it_moved_and_what_to_do(layout):
    layout.shard(0, 1).write_bytes(b"damaged")
    done = fastgen("verify", layout.out, "--repair")
    assert done.exit_code == 1
    assert f"moved to {layout.out}/damaged: shards/00001-r000.h5, run.json" in done.output
    assert "Run the same `fastgen run` command again" in done.output and not layout.shard(0, 1).exists()


def test_repair_of_a_good_folder_says_so(layout):
    done = fastgen("verify", layout.out, "--repair")
    assert done.exit_code == 0 and done.output == f"{layout.out}: every planned row is there once and undamaged\n"


def test_regenerate_says_what_it_takes(layout):
    done = fastgen("regenerate", "nothing")
    assert done.exit_code == 2 and "got 'nothing'; allowed: SHARD:ROW" in done.output
    done = fastgen("regenerate", f"{layout.shard(0, 0)}:0")
    assert done.exit_code == 2 and "--engine" in done.output


@pytest.mark.parametrize(
    "error, code, message",
    [
        (KeyboardInterrupt(), 128 + signal.SIGINT, "stopped at once; run the same command again"),
        (OSError(errno.EIO, os.strerror(errno.EIO), "/x/y"), 2, "fastgen: /x/y: Input/output error; check the path"),
        (MemoryError(), 2, "the memory is full"),
    ],
)
def test_what_nobody_expects_ends_with_one_line(layout, monkeypatch, error, code, message):
    def raises(out):
        raise error

    monkeypatch.setattr(verify_module, "verify", raises)
    done = fastgen("verify", layout.out)
    assert done.exit_code == code and message in done.output and len(done.output.splitlines()) == 1
