"""`fastgen status`: every state a rank can be in, told from files alone, and nothing is changed by looking."""

import json
import os
import signal
import socket
import time

import pytest
from click.testing import CliRunner, Result

from fastgen.cli import main
from fastgen.cluster.status import status
from fastgen.production.run import run
from tests.fake_engine import FakeEngine
from tests.output_folder import shards_in
from tests.toy_bank import start, wait_for, write_bank

ARGUMENTS = {"world": 3, "shard_size": 2, "quiet": True}


@pytest.fixture
def bank(tmp_path, monkeypatch):
    """13 images; three ranks have 5, 4 and 4 of them. No SLURM on the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return write_bank(tmp_path)


def fastgen_status(*words: object) -> Result:
    return CliRunner().invoke(main, ["status", *map(str, words)], catch_exceptions=False)


def say(out, rank, **values):
    """The progress file of a rank, as a running one leaves it."""
    facts = {"rank": rank, "world": 3, "host": "node7", "pid": 1, "slurm_job": None, "updated": time.time()}
    facts |= {"state": "running", "rows": 4, "done": 3, "made": 3, "failed": 1, "images_per_second": 0.5}
    (out / f"progress-r{rank:03d}.json").write_text(json.dumps(facts | values))


def squeue(tmp_path, *lines):
    path = tmp_path / "bin" / "squeue"
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    path.chmod(0o755)


def states(out):
    return [rank.state for rank in status(out).ranks]


def test_a_finished_run(bank, tmp_path):
    out = tmp_path / "out"
    run(bank, engine=FakeEngine(), out=out, quiet=True)
    assert sorted(os.listdir(out)) == ["plan.json", "plan.jsonl", "run.json", "shards"]
    found = status(out)
    assert found.finished and (found.rows, found.done, found.failed, found.seconds_left) == (13, 13, 0, 0.0)
    lines = fastgen_status(out).output.splitlines()
    assert lines[0] == f"{out}: 13 of 13 rows done, finished"
    assert lines[2].split()[:5] == ["0", "13", "/", "13", "0"] and lines[2].endswith("0:00  finished")


def test_ranks_in_every_state(bank, tmp_path):
    out = tmp_path / "out"
    run(bank, engine=FakeEngine(), out=out, rank=0, **ARGUMENTS)
    say(out, 1)
    found = status(out)
    assert [rank.state for rank in found.ranks] == ["finished", "running", "missing"] and not found.finished
    assert [(rank.done, rank.rows, rank.failed) for rank in found.ranks] == [(5, 5, 0), (3, 4, 1), (0, 4, 0)]
    assert found.ranks[1].seconds_left == 2.0 and found.seconds_left is None and found.images_per_second == 0.5
    say(out, 2, state="stopped", reason="stopped by SIGUSR1: 2 rows are saved\nmore", done=2)
    assert states(out)[2] == "stopped" and status(out).ranks[2].note == "stopped by SIGUSR1: 2 rows are saved"
    assert status(out).ranks[2].done == 0, "only shards count when nobody runs"
    say(out, 2, state="failed", reason="the disk is full")
    assert states(out)[2] == "failed"
    say(out, 2, updated=time.time() - 300)
    assert status(out).ranks[2].state == "killed" and "no sign for 300 s" in status(out).ranks[2].note
    say(out, 2, host=socket.gethostname(), pid=2**22 + 1)
    assert status(out).ranks[2].state == "killed" and "process 4194305 is gone" in status(out).ranks[2].note
    (out / "progress-r002.json").write_text("{")
    assert states(out)[2] == "missing"
    lines = fastgen_status(out).output.splitlines()
    assert lines[3].split()[:7] == ["1", "3", "/", "4", "1", "0.5", "0:02"] and lines[3].endswith("running (node7)")
    assert json.loads(fastgen_status(out, "--json").output)["ranks"][1]["images_per_second"] == 0.5


def test_a_killed_rank_keeps_what_its_shards_hold(tmp_path, bank):
    out = tmp_path / "out"
    process = start(bank, out, engine=FakeEngine(seconds_per_step=0.05), shard_size=2, batch=1)
    wait_for(lambda: len(shards_in(out)) > 0)
    runs = status(out).ranks[0]
    assert runs.state in ("starting", "running") and runs.rows == 13 and str(runs.note).startswith(socket.gethostname())
    before = sorted(os.listdir(out))
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    found = status(out).ranks[0]
    assert found.state == "killed" and found.done == 2 * len(shards_in(out)) and found.failed == 0
    assert sorted(os.listdir(out)) == before
    run(bank, engine=FakeEngine(), out=out, shard_size=2, quiet=True)
    assert states(out) == ["finished"] and not (out / "progress-r000.json").exists()


def test_a_rank_that_was_stopped_inside_a_shard(tmp_path, bank):
    out = tmp_path / "out"
    process = start(bank, out, engine=FakeEngine(seconds_per_step=0.05), batch=1)
    wait_for(lambda: list((out / "shards").glob("*.part")) if (out / "shards").exists() else False)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGUSR1)
    process.join()
    assert process.exitcode == 75 and shards_in(out) == ["00000-r000-p0.h5"]
    found = status(out).ranks[0]
    assert found.state == "stopped" and 0 < found.done < 13 and f"{found.done} of 13 rows are saved" in found.note


def test_the_queue_tells_what_files_cannot(bank, tmp_path):
    out = tmp_path / "out"
    (out / "slurm").mkdir(parents=True)
    jobs = ({"job": "3", "array": 9, "tasks": 1}, {"job": "7", "array": 3, "tasks": 1})
    (out / "slurm" / "jobs.jsonl").write_text("".join(json.dumps(job) + "\n" for job in jobs))
    squeue(tmp_path, "0|PENDING|(Resources)", "1|RUNNING|node7", "2|PENDING|(Resources)")
    found = status(out)
    assert found.job == "7" and found.rows is None and found.seconds_left is None
    assert [(rank.state, rank.note) for rank in found.ranks] == [
        ("queued", "pending: Resources"),
        ("starting", "on node7"),
        ("queued", "pending: Resources"),
    ]
    assert "0 of ? rows done" in fastgen_status(out).output
    run(bank, engine=FakeEngine(), out=out, rank=0, **ARGUMENTS)
    say(out, 1, slurm_job="7_1")
    say(out, 2, slurm_job="7_2", state="stopped", reason="stopped by SIGUSR1", done=2)
    assert states(out) == ["finished", "running", "queued"]
    squeue(tmp_path)
    assert states(out) == ["finished", "killed", "stopped"]
    assert status(out).ranks[1].note == "node7, job 7_1 has ended"
    say(out, 1, slurm_job="8_1")
    assert states(out)[1] == "running", "a job that somebody submitted by hand"


def test_a_folder_without_a_run(tmp_path):
    result = fastgen_status(tmp_path)
    assert result.exit_code == 2 and "has no plan.json" in result.output


def test_a_rank_may_end_while_its_file_is_looked_for(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "progress-r000.json").symlink_to(out / "gone")  # listed, and not there any more when it is read
    found = fastgen_status(out)
    assert found.exit_code == 2 and "no plan.json" in found.stderr
    say(out, 1, world=2)
    assert len(status(out).ranks) == 2
