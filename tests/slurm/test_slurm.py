"""fastgen on a real SLURM: stopped, preempted, killed, cancelled, requeued; the union of the shards is exact."""

import sys
from pathlib import Path

import pytest

from fastgen.cluster.status import status
from fastgen.shards.verify import verify
from tests.output_folder import assert_same, images_of
from tests.slurm.cluster import (
    RUN,
    call,
    ending,
    fastgen,
    has_begun,
    kill,
    logs,
    release,
    state,
    states,
    until,
)

pytestmark = pytest.mark.slurm


def files_of(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def submit(out: Path, engine: Path, *words: object) -> str:
    """Submit the run; returns the job's number."""
    said = fastgen("submit", *RUN, "--engine", engine, "--out", out, *words)
    assert said.startswith("job ") and f"fastgen status {out}" in said
    return said.split()[1]


def check(out: Path, uninterrupted: Path) -> None:
    """Every row once, undamaged, bit by bit what one process makes, and nothing left behind."""
    assert verify(out) == []
    assert_same(images_of(out), images_of(uninterrupted))
    assert not [path for path in out.iterdir() if path.name.startswith((".", "progress"))]
    found = status(out)
    assert found.finished and found.done == found.rows and {rank.state for rank in found.ranks} == {"finished"}


def test_two_processes_build_an_engine_once(build_output):
    engine, said = build_output
    assert said.count(f"{engine} is ready, fingerprint") == 1
    assert said.count(f"{engine} is being built by another process; waiting for it") == 1
    assert said.count(f"{engine} is up to date") == 1
    assert [path.name for path in engine.parent.iterdir()] == ["mini"]


def test_ranks_from_the_variables_that_slurm_really_sets(slurm, tmp_path):
    code = "from fastgen.job import job_share; import os, sys; world = int(sys.argv[1]) or None; "
    code += "print(job_share(None, world), os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True)"
    script = tmp_path / "job.sh"
    for name, options, world, expected in (
        ("array", ["--array=10-20:5"], 0, ["rank 0 of 3", "rank 1 of 3", "rank 2 of 3"]),
        ("some", ["--array=3,7"], 8, ["rank 3 of 8", "rank 7 of 8"]),
        ("both", ["--array=0-1", "--ntasks=2"], 0, [f"rank {rank} of 4" for rank in range(4)]),
        ("gpus", ["--ntasks=2", "--gpus-per-task=1"], 0, ["rank 0 of 2", "rank 1 of 2"]),
        ("one", [], 0, ["rank 0 of 1"]),
    ):
        script.write_text(f'#!/bin/bash\nsrun {sys.executable} -c "{code}" {world}\n')
        call("sbatch", "--wait", f"--output={tmp_path}/{name}-%a.log", "--job-name", name, *options, script)
        lines = sorted("".join(path.read_text() for path in tmp_path.glob(f"{name}-*.log")).splitlines())
        assert [line.split(" (")[0] for line in lines] == expected
    (log,) = tmp_path.glob("gpus-*.log")
    assert sorted(line.split()[-1] for line in log.read_text().splitlines()) == ["0", "1"]


def test_an_array_is_stopped_requeued_and_loses_a_process(engine, uninterrupted, tmp_path):
    before, out = files_of(engine), tmp_path / "out"
    job = submit(out, engine, "--array", 2, "--tasks", 2)
    until("every rank has begun", lambda: has_begun(out, range(4)))
    assert states(out) == ["running"] * 4 and status(out).job == job
    refused = "is still in the queue"
    with pytest.raises(AssertionError, match=refused):
        submit(out, engine, "--array", 2, "--tasks", 2)

    # What --signal=B:USR1@120 sends at the end of the time: the batch shell alone gets it.
    call("scancel", "--batch", "--signal=USR1", f"{job}_0")
    kill(out, 3)
    until("task 0 has saved", lambda: state(f"{job}_0") == "PENDING")
    assert states(out)[:2] == ["queued", "queued"] and states(out)[3] == "killed"
    assert logs(out).count("saved; back into the queue") == 1 and "stopped by SIGUSR1" in logs(out)
    call("scontrol", "requeue", f"{job}_1")  # as an operator does; rank 2 is still at work
    release(f"{job}_0")
    release(f"{job}_1")
    assert (ending(f"{job}_0"), ending(f"{job}_1")) == ("COMPLETED", "COMPLETED")
    check(out, uninterrupted)
    assert files_of(engine) == before, "engines are shared, and only read"


def test_a_preempted_job_goes_on_and_a_cancelled_one_stays_cancelled(engine, uninterrupted, tmp_path):
    out = tmp_path / "out"
    job = submit(out, engine, "--tasks", 2)
    until("both ranks have begun", lambda: has_begun(out, range(2)))
    whole = ("--partition=urgent", "--nodes=2", "--exclusive")
    urgent = call("sbatch", "--parsable", *whole, "--output=/dev/null", "--wrap=:")
    until("the job is preempted", lambda: state(job) == "PENDING")
    assert ending(urgent) == "COMPLETED"
    assert "stopped by SIGTERM" in logs(out) and states(out) == ["queued", "queued"]
    done = status(out).done
    assert done > 0
    release(job)
    until("it goes on", lambda: status(out).done > done)
    call("scancel", job)
    assert ending(job) == "CANCELLED" and states(out) == ["stopped", "stopped"]
    again = submit(out, engine, "--tasks", 2)
    assert ending(again) == "COMPLETED"
    check(out, uninterrupted)
