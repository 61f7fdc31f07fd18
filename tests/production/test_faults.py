"""What the world does to a run: full disks, read-only folders, folders that vanish, second runs, odd clocks."""

import errno
import fcntl
import itertools
import json
import os
import shutil
import signal
import subprocess
import time

import pytest

from fastgen.errors import DataError, FastgenError, OutputError
from fastgen.production.run import run
from fastgen.shards.layout import Layout
from fastgen.shards.verify import verify
from tests.fake_engine import FakeEngine
from tests.output_folder import assert_same, images_of, shards_in
from tests.toy_bank import FORK, start, wait_for, write_bank

ARGUMENTS = {"shard_size": 4, "batch": 2, "quiet": True}


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return write_bank(tmp_path_factory.mktemp("bank"))


@pytest.fixture(scope="module")
def expected(bank):
    run(bank, engine=FakeEngine(), out=bank.parent / "expected", quiet=True)
    return images_of(bank.parent / "expected")


def mount(*arguments):
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path):
    """A disk of its own of 512 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=512k", "tmpfs", folder)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


class Troubled(FakeEngine):
    """Something happens before the n-th step."""

    def __init__(self, number, happen):
        super().__init__()
        self.number, self.happen = number, happen

    def unet(self, **tensors):
        self.number -= 1
        if self.number == 0:
            self.happen()
        return super().unet(**tensors)


def fill(folder):
    """Use up the disk to the last byte."""
    with open(folder / "filler", "wb", buffering=0) as handle, pytest.raises(OSError, match="No space left"):
        while True:
            handle.write(bytes(1 << 12))
    with open(folder / "filler", "ab", buffering=0) as handle, pytest.raises(OSError, match="No space left"):
        while True:
            handle.write(bytes(1))


def refused(bank, out, engine, **arguments):
    """The message of a run that cannot go on."""
    with pytest.raises(OutputError) as error:
        run(bank, engine=engine, out=out, **ARGUMENTS | arguments)
    assert error.value.exit_code == 2 and len(str(error.value)) < 400, str(error.value)
    return str(error.value)


@pytest.mark.parametrize("step", [1, 5, 9])
def test_a_disk_that_is_full_loses_nothing(bank, expected, disk, step):
    out = disk / "out"
    message = refused(bank, out, Troubled(step, lambda: fill(disk)))
    assert "cannot be written (No space left on device" in message and str(disk) in message
    (disk / "filler").unlink()
    saved = len(images_of(out)) if shards_in(out) else 0
    assert saved == 4 * len(shards_in(out)) and not list((out / "shards").glob("*.part"))
    assert run(bank, engine=FakeEngine(), out=out, **ARGUMENTS).made == len(expected) - saved
    assert verify(out) == []
    assert_same(images_of(out), expected)


def test_a_disk_that_is_full_before_the_plan(bank, disk):
    fill(disk)
    message = refused(bank, disk / "out", FakeEngine())
    assert "No space left on device" in message


def test_a_file_that_may_not_grow(bank, tmp_path):
    """The same by a limit of the process (a quota, say), where nobody may mount a disk."""
    import resource

    def child():
        import torch

        torch.set_num_threads(1)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
        try:
            run(bank, engine=FakeEngine(), out=tmp_path / "out", **ARGUMENTS)
        except OutputError as error:
            (tmp_path / "message").write_text(str(error)[:5000])
            os._exit(error.exit_code)
        os._exit(0)

    process = FORK.Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 2
    assert "00000-r000.h5" in (tmp_path / "message").read_text()
    assert "File too large" in (tmp_path / "message").read_text() and shards_in(tmp_path / "out") == []


@pytest.mark.parametrize("begun", [False, True])
def test_a_read_only_folder(bank, disk, begun):
    out = disk / "out"
    if begun:
        run(bank, engine=FakeEngine(), out=out, **ARGUMENTS)
        Layout(out).shard(0, 1).unlink()
    mount("-o", "remount,ro", disk)
    message = refused(bank, out, FakeEngine())
    assert "cannot be written (Read-only file system); check the path" in message and str(out) in message
    mount("-o", "remount,rw", disk)
    run(bank, engine=FakeEngine(), out=out, **ARGUMENTS)
    assert verify(out) == []


def test_a_disk_that_becomes_read_only_during_the_run(bank, expected, disk):
    """As a failing disk does. The file that is open keeps the disk writable, so it is closed by the fault itself."""
    out = disk / "out"

    def happen():
        for name in os.listdir("/proc/self/fd"):
            with_target = f"/proc/self/fd/{name}"
            if os.path.exists(with_target) and os.readlink(with_target).startswith(str(out)):
                os.dup2(os.open(os.devnull, os.O_RDWR), int(name))
        mount("-o", "remount,ro", disk)

    message = refused(bank, out, Troubled(5, happen))
    assert str(out) in message
    mount("-o", "remount,rw", disk)
    run(bank, engine=FakeEngine(), out=out, **ARGUMENTS)
    assert verify(out) == []
    assert_same(images_of(out), expected)


def test_a_folder_that_vanishes_during_the_run(bank, expected, tmp_path):
    out = tmp_path / "out"
    message = refused(bank, out, Troubled(9, lambda: shutil.rmtree(out)))
    assert "cannot be written (No such file or directory)" in message and str(out) in message
    assert shards_in(out) == [] and not (out / "plan.json").exists()
    run(bank, engine=FakeEngine(), out=out, **ARGUMENTS)
    assert_same(images_of(out), expected)


def test_a_second_run_is_told_so_and_the_first_one_goes_on(bank, expected, tmp_path):
    out = tmp_path / "out"
    first = start(bank, out, engine=FakeEngine(seconds_per_step=0.05), shard_size=4, batch=2)
    wait_for(lambda: list((out / "shards").glob("*.part")))
    message = refused(bank, out, FakeEngine())
    assert message == (
        f"{out}: another process is making rank 0; wait for it, or split the work with --rank and --world"
    )
    first.join(60)
    assert first.exitcode == 0 and verify(out) == []
    assert_same(images_of(out), expected)


def no_locks(*_):
    raise OSError(errno.ENOLCK, "No locks available")


def test_a_file_system_without_locks_is_named(bank, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fcntl, "flock", no_locks)
    run(bank, engine=FakeEngine(), out=tmp_path / "out", shard_size=4)
    lines = [line for line in capsys.readouterr().err.splitlines() if "locks" in line]
    assert lines == [f"{tmp_path}/out: this file system has no locks: see to it that every rank is started only once"]
    assert verify(tmp_path / "out") == []


def test_without_locks_a_second_run_damages_nothing(bank, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", no_locks)
    out = tmp_path / "out"
    runs = []
    for _ in range(3):
        runs.append(start(bank, out, engine=FakeEngine(seconds_per_step=0.01), shard_size=4, batch=2))
        time.sleep(0.05)
    for process in runs:
        process.join(60)
    assert 0 in [process.exitcode for process in runs] and {process.exitcode for process in runs} <= {0, 2}
    run(bank, engine=FakeEngine(), out=out, shard_size=4, quiet=True)
    assert verify(out) == []
    assert_same(images_of(out), expected)


def test_a_clock_that_jumps(bank, expected, tmp_path, monkeypatch):
    jumps = itertools.cycle([0.0, 4e9, -4e9, 1e5])
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    report = run(bank, engine=FakeEngine(), out=tmp_path / "out", shard_size=4)
    assert 0 < report.seconds < 600 and verify(tmp_path / "out") == []
    assert_same(images_of(tmp_path / "out"), expected)


def test_files_from_the_future_are_those_of_the_run(bank, tmp_path):
    out = tmp_path / "out"
    run(bank, engine=FakeEngine(), out=out, **ARGUMENTS)
    for path in out.rglob("*"):
        os.utime(path, (4e9, 4e9))
    assert run(bank, engine=FakeEngine(), out=out, **ARGUMENTS).made == 0


@pytest.mark.parametrize("size", [0, 100, 0.5, -1])
def test_a_cut_shard_is_named_at_resume_with_what_to_do(bank, expected, tmp_path, size):
    out = tmp_path / "out"
    run(bank, engine=FakeEngine(), out=out, **ARGUMENTS)
    path = Layout(out).shard(0, 1)
    data = path.read_bytes()
    path.write_bytes(data[: int(size * len(data)) if isinstance(size, float) else size])
    message = refused(bank, out, FakeEngine())
    assert str(path) in message and "Delete this file and run again: only its rows are made anew" in message
    path.unlink()
    assert run(bank, engine=FakeEngine(), out=out, **ARGUMENTS).made == 4
    assert_same(images_of(out), expected)


def test_a_lost_plan_json_is_written_again_by_the_same_command_only(bank, tmp_path):
    out = tmp_path / "out"
    run(bank, engine=FakeEngine(), out=out, **ARGUMENTS)
    before = (out / "plan.json").read_bytes()
    (out / "plan.json").unlink()
    assert "but no plan.json; choose another --out" in refused(bank, out, FakeEngine(), seed=1)
    assert run(bank, engine=FakeEngine(), out=out, **ARGUMENTS).made == 0
    assert (out / "plan.json").read_bytes() == before and verify(out) == []


def test_a_plan_that_is_no_text_names_its_place(bank, tmp_path):
    out = tmp_path / "out"
    run(bank, engine=FakeEngine(), out=out, **ARGUMENTS)
    Layout(out).shard(0, 1).unlink()
    lines = (out / "plan.jsonl").read_bytes().splitlines(keepends=True)
    (out / "plan.jsonl").write_bytes(b"".join([*lines[:5], b"\xff\xfe\n", *lines[6:]]))
    with pytest.raises(FastgenError, match="plan.jsonl:6: .*the plan was changed by hand"):
        run(bank, engine=FakeEngine(), out=out, **ARGUMENTS)


def test_regenerate_says_identical_or_how_far_and_why(bank, tmp_path):
    from PIL import Image

    from fastgen.production.regenerate import regenerate

    out, refs = tmp_path / "out", bank.parent / "refs"
    run(bank, engine=FakeEngine(), out=out, refs=refs, **ARGUMENTS)
    path = Layout(out).shard(0, 1)
    found = regenerate(f"{path}:2", engine=FakeEngine(), out=tmp_path / "both.png")
    assert found.is_identical and str(found) == f"{path}:2 (row {found.row_id!r}): made again, identical"
    with Image.open(tmp_path / "both.png") as both:
        assert both.size == (2 * found.stored.shape[1], found.stored.shape[0])
    assert regenerate(f"{path}:{found.row_id}", engine=FakeEngine()).place == 2
    other = FakeEngine(fingerprint="0" * 64)
    other._mix = other._mix * 1.5
    report = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**report, "versions": {**report["versions"], "numpy": "0.1"}}))
    apart = regenerate(f"{path}:2", engine=other)
    assert not apart.is_identical and apart.difference.max() > 0
    lines = str(apart).splitlines()
    assert f"differs by at most {apart.difference.max()} of 255 grey levels" in lines[0]
    assert lines[1].startswith("  engine: the shard's is ffffffffffff..., this one is 000000000000")
    assert lines[2].startswith("  numpy: was 0.1, is ")


@pytest.mark.parametrize(
    "row, message",
    [
        ("", "allowed: SHARD:ROW"),
        (":4", "has no row 4; allowed: 0 to 3, or the id of a row"),
        (":nobody", "has no row 'nobody'"),
    ],
)
def test_regenerate_refuses_what_is_not_there(bank, tmp_path, row, message):
    from fastgen.production.regenerate import regenerate

    out = tmp_path / "out"
    run(bank, engine=FakeEngine(), out=out, **ARGUMENTS)
    with pytest.raises(FastgenError) as error:
        regenerate(f"{Layout(out).shard(0, 1)}{row}", engine=FakeEngine())
    assert message in str(error.value)
    with pytest.raises(FastgenError, match="no such shard"):
        regenerate(f"{out}/nothing.h5:0", engine=FakeEngine())
    Layout(out).shard(0, 1).write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read as a shard"):
        regenerate(f"{Layout(out).shard(0, 1)}:0", engine=FakeEngine())
    with pytest.raises(FastgenError, match="no engine in engines/ has the fingerprint ffffffffffff"):
        regenerate(f"{Layout(out).shard(0, 0)}:0")
