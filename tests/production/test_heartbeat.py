"""What a rank says about itself while it runs, after it was stopped, and when it has finished."""

import json
import os
import socket
import time

import pytest

from fastgen.errors import Interrupted, OutputError
from fastgen.job import Job
from fastgen.production import heartbeat
from fastgen.production.heartbeat import Heartbeat
from fastgen.production.progress import RunProgress
from fastgen.shards.layout import Layout
from tests.toy_bank import wait_for

JOB = Job(rank=1, world=3, source="a test")


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.02)
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    return Layout(tmp_path)


def said(layout):
    return json.loads(layout.progress(1).read_text())


def test_it_starts_runs_and_disappears(layout):
    (layout.out / ".progress-r001.json.77-abc.tmp").write_text("{")  # of a process that was killed
    with Heartbeat(layout, JOB) as heart:
        first = said(layout)
        assert (first["state"], first["rank"], first["world"], first["done"]) == ("starting", 1, 3, None)
        assert (first["pid"], first["host"], first["slurm_job"]) == (os.getpid(), socket.gethostname(), None)
        progress = RunProgress(quiet=True, watch=heart.beat)
        with progress:
            progress.expect(10, there=4, failed=1)
            progress.image(good=True)
            progress.image(good=False)
            wait_for(lambda: said(layout)["state"] == "running")
        last = said(layout)
        assert (last["rows"], last["done"], last["made"], last["failed"]) == (10, 6, 2, 2)
        assert last["images_per_second"] > 0
        wait_for(lambda: said(layout)["updated"] > last["updated"])  # also without a new image
    assert os.listdir(layout.out) == []


def test_the_first_image_is_told_at_once(layout, monkeypatch):
    monkeypatch.setattr(heartbeat, "INTERVAL", 3600.0)
    with Heartbeat(layout, JOB) as heart, RunProgress(quiet=True, watch=heart.beat) as progress:
        progress.expect(10, there=0, failed=0)
        progress.image(good=True)
        wait_for(lambda: said(layout)["state"] == "running")
        assert said(layout)["made"] == 1


def test_the_rate_is_that_of_the_images_not_of_the_clock(layout):
    with Heartbeat(layout, JOB) as heart, RunProgress(quiet=True, watch=heart.beat) as progress:
        time.sleep(0.1)
        progress.image(good=True)
        time.sleep(0.5)  # the next batch is being made
        assert said(layout)["images_per_second"] > 3


@pytest.mark.parametrize(
    "error, state, reason",
    [
        (Interrupted("stopped by SIGUSR1: 3 rows are saved"), "stopped", "stopped by SIGUSR1: 3 rows are saved"),
        (KeyboardInterrupt(), "stopped", "KeyboardInterrupt()"),
        (OutputError("the disk is full"), "failed", "the disk is full"),
        (RuntimeError("boom" * 1000), "failed", "RuntimeError('boomboom"),
    ],
)
def test_an_end_that_is_none_is_told(layout, error, state, reason):
    with pytest.raises(type(error)), Heartbeat(layout, JOB):
        raise error
    assert said(layout)["state"] == state and said(layout)["reason"].startswith(reason)
    assert len(said(layout)["reason"]) <= 500


def test_slurm_names_the_job(layout, monkeypatch):
    for environ, name in (
        ({"SLURM_JOB_ID": "9"}, "9"),
        ({"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}, "7_2"),
    ):
        for key, value in environ.items():
            monkeypatch.setenv(key, value)
        with Heartbeat(layout, JOB):
            assert said(layout)["slurm_job"] == name


def test_a_folder_that_cannot_be_written_disturbs_nothing(layout):
    with Heartbeat(layout, JOB) as heart:
        layout.progress(1).unlink()
        layout.progress(1).mkdir()  # a rename onto a folder fails, whoever the user is
        (layout.progress(1) / "x").write_text("")
        with RunProgress(quiet=True, watch=heart.beat) as progress:
            progress.image(good=True)
            time.sleep(0.1)
    assert layout.progress(1).is_dir()
