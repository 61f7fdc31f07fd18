"""Talk to the SLURM that `hpc/local-slurm` started: wait for states, release what waits, look at a run from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from fastgen.cluster.status import RunStatus, status

ROOT = Path(__file__).resolve().parents[2]
BANK = ROOT / "prompts" / "pets.jsonl"
ROWS = 32
RUN = f"--bank {BANK} --limit {ROWS} --steps 20 --shard-size 2 --policy uniform".split()
"""A run of the embedded model: short, and with many moments at which something can happen to it."""


def call(*words: object) -> str:
    """Run a command and return what it prints; a failure shows both streams."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{words}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def fastgen(*words: object) -> str:
    return call(sys.executable, "-m", "fastgen.cli", *words)


def until(what, condition, *, seconds=240.0):
    """Wait until `condition()` is true, and return what it returned."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what}: took longer than {seconds:.0f} s\n{call('squeue')}"
        time.sleep(0.1)
    return found


def state(job: str) -> str:
    """SLURM's word for a job or a task of an array; "" when it has left the queue."""
    done = subprocess.run(["squeue", "-h", "-o", "%T", "-j", job], capture_output=True, text=True)
    return done.stdout.strip()


def ending(job: str) -> str:
    """JobState of a job that has ended, as scontrol remembers it."""
    until(f"job {job} ends", lambda: state(job) in ("", "CANCELLED", "COMPLETED", "FAILED"))
    text = call("scontrol", "show", "job", job, "--oneliner")
    return text.split("JobState=")[1].split()[0]


def release(job: str) -> None:
    """Start a requeued job soon: SLURM lets it wait for two minutes first.

    At once would be too early: for seconds after it took the nodes away, the nodes take the job's new credential for
    the revoked one ("Job credential revoked").
    """
    until(f"job {job} is back in the queue", lambda: state(job) == "PENDING")
    time.sleep(5)
    call("scontrol", "update", f"jobid={job}", "StartTime=now")


def has_begun(out: Path, ranks) -> bool:
    """Whether each of the ranks has published a shard, is at work on another, and has said so."""
    names = [path.name for path in (out / "shards").glob("*.h5*")] if (out / "shards").exists() else []
    of_rank = {rank: [name for name in names if f"-r{rank:03d}" in name] for rank in ranks}
    works = all(any(name.endswith(end) for name in of_rank[rank]) for rank in ranks for end in (".h5", ".part"))
    return works and {state for rank, state in enumerate(states(out)) if rank in ranks} == {"running"}


def kill(out: Path, rank: int) -> None:
    """End the process of a rank as the kernel does when memory runs out."""
    os.kill(json.loads((out / f"progress-r{rank:03d}.json").read_text())["pid"], signal.SIGKILL)


def states(out: Path) -> list[str]:
    found: RunStatus = status(out)
    return [rank.state for rank in found.ranks]


def logs(out: Path) -> str:
    return "".join(path.read_text() for path in sorted((out / "slurm").glob("*.log")))
