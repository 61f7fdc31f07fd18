"""`fastgen submit`: check a run on the login node, write its sbatch script into the output folder, submit it.

OUT/slurm/job.sh       the script; `sbatch OUT/slurm/job.sh` does the same again
OUT/slurm/jobs.jsonl   one line per submission, for `fastgen status`
OUT/slurm/*.log        what the jobs print
"""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import time as now
from typing import Any

from fastgen.bank.read import open_bank
from fastgen.cluster.script import Resources, sbatch_script
from fastgen.cluster.slurm import check_sbatch, queue, submit_script
from fastgen.errors import FastgenError
from fastgen.files import atomic_write_text, read_jsonl
from fastgen.production.engines import find_engine
from fastgen.shards.layout import Layout, read_json

FOLDER = "slurm"
"""In the output folder: script, list of submissions, logs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What was submitted.

    Attributes:
        script: path of the sbatch script; written, except with dry_run.
        text: its content.
        job: number of the job; None with dry_run.
    """

    script: Path
    text: str
    job: str | None


def submit(
    words: Sequence[str],
    *,
    bank: str | Path,
    engine: str | Path | None = None,
    out: str | Path | None = None,
    array: int = 1,
    tasks: int = 1,
    gpus: int = 1,
    cpus: int | None = None,
    mem: str | None = None,
    time: str | None = None,
    partition: str | None = None,
    account: str | None = None,
    after: str | None = None,
    sbatch: Sequence[str] = (),
    setup: Sequence[str] = (),
    program: str | None = None,
    dry_run: bool = False,
) -> Submission:
    """Write the script that runs `fastgen run WORDS` on array x tasks processes, and submit it.

    Args:
        words: options of `fastgen run` as typed, without --rank and --world.
        bank: the one they name.
        engine: the one they name, or None; it need not exist yet if the job waits for `after`.
        out: the folder they name; None is that of `run`, out/<name of the bank's file>.
        array: tasks of the job array.
        tasks: processes of every job, all on one node.
        gpus: per process; 0 for none.
        cpus: per process.
        mem: per job.
        time: limit of every job.
        partition: where to run.
        account: that pays.
        after: number of a job that has to succeed before.
        sbatch: further options of sbatch.
        setup: shell lines that come before the command.
        program: how jobs call fastgen; None is this installation, or `fastgen` when `setup` is there to find it.
        dry_run: write and submit nothing.

    Raises:
        FastgenError: bank, engine or a number is wrong, the folder was started with another number of processes or is
            still being worked on, or SLURM refuses the script.
    """
    resources = Resources(
        array=array, tasks=tasks, gpus=gpus, cpus=cpus, mem=mem, time=time, partition=partition, account=account,
        after=after, more=tuple(sbatch),
    )  # fmt: skip
    path = Path(bank)
    open_bank(path)  # its header has to be right; `run` checks the rows
    if after is None or engine is None:
        find_engine(engine)
    layout = Layout(Path(out) if out is not None else Path("out") / path.stem)
    _check_folder(layout, resources)
    folder = layout.out / FOLDER
    command = [*_program(program, setup), "run", *words, "--world", str(resources.world)]
    place = {"name": f"fastgen-{layout.out.name}", "folder": os.getcwd(), "log": str(folder)}
    text = sbatch_script(command, resources, **place, setup=tuple(setup))
    script = folder / "job.sh"
    job = None if dry_run else _send(script, text, resources)
    return Submission(script=script, text=text, job=job)


def last_submission(layout: Layout) -> dict[str, Any] | None:
    """The last line of jobs.jsonl: `job`, `array`, `tasks`, `submitted`; None if the folder was not submitted."""
    path = layout.out / FOLDER / "jobs.jsonl"
    lines = list(read_jsonl(path)) if path.exists() else []
    return lines[-1] if lines else None


def _check_folder(layout: Layout, resources: Resources) -> None:
    """Refuse a folder that was begun with another number of ranks, or that a job is working on."""
    signature = read_json(layout.signature)
    if signature is not None and signature.get("world") != resources.world:
        raise FastgenError(
            f"{layout.out}: was started with {signature.get('world')} processes, this command has {resources.array} x "
            f"{resources.tasks} (--array x --tasks); give as many as before, or choose another --out"
        )
    last = last_submission(layout)
    if last is not None and (waiting := queue(last["job"])):
        states = ", ".join(sorted({state.state for state in waiting.values()}))
        raise FastgenError(
            f"{layout.out}: job {last['job']} is still in the queue ({states}), and two jobs cannot share its ranks; "
            f"wait for it, or end it: scancel {last['job']}"
        )


def _program(program: str | None, setup: Sequence[str]) -> list[str]:
    """The words that start fastgen in a job."""
    if program is not None:
        words = shlex.split(program)
        if not words:
            raise FastgenError("got an empty --program; allowed: how a job calls fastgen, such as /opt/bin/fastgen")
        return words
    own = Path(sys.executable).with_name("fastgen")
    return ["fastgen"] if setup or not own.exists() else [str(own)]


def _send(script: Path, text: str, resources: Resources) -> str:
    """Write the script, submit it, and keep a note of it; returns the job's number."""
    check_sbatch()
    atomic_write_text(script, text)
    job = submit_script(script)
    note = {"job": job, "array": resources.array, "tasks": resources.tasks, "submitted": round(now(), 1)}
    with open(script.with_name("jobs.jsonl"), "a", encoding="utf-8") as handle:
        handle.write(json.dumps(note) + "\n")
    return job
