"""SLURM's own commands, asked from Python: sbatch and squeue."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fastgen.errors import FastgenError

SECONDS = 20
"""How long a busy controller may take to answer squeue."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """What the queue says about a job, or one task of an array.

    Attributes:
        state: SLURM's word, in capitals: PENDING, RUNNING, COMPLETING, ...
        reason: why it waits, or the nodes it runs on.
    """

    state: str
    reason: str


def check_sbatch() -> None:
    """Raise FastgenError unless this machine has sbatch."""
    if shutil.which("sbatch") is None:
        raise FastgenError(
            "there is no sbatch on this machine: run fastgen submit on a login node of the cluster, or see what it "
            "would submit with --dry-run"
        )


def submit_script(script: Path) -> str:
    """Submit a script and return the job's number.

    Raises:
        FastgenError: it refuses the script; its own words are in the message.
    """
    done = subprocess.run(["sbatch", "--parsable", str(script)], capture_output=True, text=True)
    number = done.stdout.strip().split(";")[0]
    if done.returncode or not number.isdigit():
        reason = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise FastgenError(f"sbatch refuses {script}: {reason.removeprefix('sbatch: error: ')}")
    return number


def queue(job: str) -> dict[int, QueueState] | None:
    """What is left of a job in the queue: state by array task; a job that is no array has the one task 0.

    Args:
        job: number of the job.

    Returns:
        Empty when the job has ended or is unknown; None when SLURM cannot be asked.
    """
    if shutil.which("squeue") is None:
        return None
    # %K: the task, N/A without an array. -r: waiting tasks one by one, not as 3-7.
    command = ["squeue", "--noheader", "--array", f"--jobs={job}", "--format=%K|%T|%R"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return {} if re.search("invalid job id", done.stderr, re.IGNORECASE) else None
    states = {}
    for line in done.stdout.splitlines():
        task, state, reason = line.strip().split("|", 2)
        states[int(task) if task.isdigit() else 0] = QueueState(state, reason.strip("()"))
    return states
