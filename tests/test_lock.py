"""One process at a time holds the lock, and it ends with its holder."""

import multiprocessing
import os
import time

import pytest

from fastgen.errors import OutputError
from fastgen.lock import file_lock

FORK = multiprocessing.get_context("fork")


def count_up(path, lock):
    for _ in range(100):
        with file_lock(lock, on_wait=lambda: None):
            number = int(path.read_text())
            time.sleep(0.0005)
            path.write_text(str(number + 1))


def test_nobody_is_in_at_the_same_time(tmp_path):
    path, lock = tmp_path / "count", tmp_path / "locks" / "lock"
    path.write_text("0")
    processes = [FORK.Process(target=count_up, args=(path, lock)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert path.read_text() == "400" and not lock.exists()


def test_it_ends_with_its_holder_and_whoever_waits_is_told(tmp_path):
    inside, told = FORK.Event(), []

    def hold():
        with file_lock(tmp_path / "lock", on_wait=lambda: None):
            inside.set()
            time.sleep(60)

    process = FORK.Process(target=hold)
    process.start()
    assert inside.wait(30)

    def on_wait():
        told.append(True)
        process.kill()

    with file_lock(tmp_path / "lock", on_wait=on_wait):
        assert told == [True]
    process.join()
    assert os.listdir(tmp_path) == []


def test_a_lock_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="lock: cannot be written"):
        with file_lock(tmp_path / "file" / "lock", on_wait=lambda: None):
            pytest.fail("the block must not run")
