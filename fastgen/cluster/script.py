"""The sbatch script of a run, as text: one process per GPU by srun, stopped in time, requeued until it is finished."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from fastgen.errors import FastgenError

WARNING_SECONDS = 120
"""How long before the end of its time a job is told to save: a batch of large images takes a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What to ask SLURM for; None asks for nothing, and the cluster's default holds.

    Args:
        array: tasks of the job array; 1 is a single job.
        tasks: processes of every job, all on one node; each is one rank of the run.
        gpus: per process; 0 for none.
        cpus: per process.
        mem: per job, as `--mem` of sbatch: 32G.
        time: limit, as `--time` of sbatch: 4:00:00 or 1-12.
        partition: as in `sinfo`.
        account: that pays.
        after: number of a job that has to succeed before: the build of the engine, say.
        more: further options of sbatch, as typed: `--constraint=a100`.
    """

    array: int = 1
    tasks: int = 1
    gpus: int = 1
    cpus: int | None = None
    mem: str | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    after: str | None = None
    more: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        """Refuse what sbatch would misread.

        Raises:
            FastgenError: a value is not allowed.
        """
        for name, value, least in (("array", self.array, 1), ("tasks", self.tasks, 1), ("gpus", self.gpus, 0)):
            if value < least:
                raise FastgenError(f"got --{name} {value}; allowed: {least} or more")
        if self.cpus is not None and self.cpus < 1:
            raise FastgenError(f"got --cpus {self.cpus}; allowed: 1 or more")
        if self.after is not None and not self.after.isdigit():
            raise FastgenError(f"got --after {self.after!r}; allowed: the number of a SLURM job")
        for text in (self.mem, self.time, self.partition, self.account, *self.more):
            if text is not None and ("\n" in text or not text.strip()):
                raise FastgenError(f"got {text!r} for an option of sbatch; allowed: one line that is not empty")
        for text in self.more:
            if not text.startswith("-"):
                raise FastgenError(f"got --sbatch {text!r}; allowed: an option of sbatch, --sbatch=--constraint=a100")

    @property
    def world(self) -> int:
        """Ranks of the run."""
        return self.array * self.tasks


def sbatch_script(
    words: Sequence[str], resources: Resources, *, name: str, folder: str, log: str, setup: Sequence[str] = ()
) -> str:
    """Return the text of the script.

    Args:
        words: the command of one process, `fastgen run ...`, with `--world` but without `--rank`.
        resources: what to ask for.
        name: of the job.
        folder: the jobs' working directory.
        log: folder of the jobs' output; it has to exist when the job starts.
        setup: shell lines that come before, such as `module load cuda`.
    """
    head = "\n".join(f"#SBATCH {line}" for line in _directives(resources, name=name, folder=folder, log=log))
    lines = "".join(f"{line}\n" for line in setup)
    step = " ".join(_step(resources))
    return _TEMPLATE.format(head=head, setup=lines, step=step, command=shlex.join(words))


def _directives(resources: Resources, *, name: str, folder: str, log: str) -> list[str]:
    """The options of sbatch, one per line."""
    is_array = resources.array > 1
    options = {
        "job-name": name,
        "array": f"0-{resources.array - 1}" if is_array else None,
        "partition": resources.partition,
        "account": resources.account,
        "dependency": f"afterok:{resources.after}" if resources.after else None,
        "nodes": 1,
        "ntasks": resources.tasks,
        "gpus-per-task": resources.gpus or None,
        "cpus-per-task": resources.cpus,
        "mem": resources.mem,
        "time": resources.time,
        "chdir": folder,
        "output": log.replace("%", "%%") + ("/%A_%a.log" if is_array else "/%j.log"),
        "open-mode": "append",
        "signal": f"B:USR1@{WARNING_SECONDS}",
    }
    given = [f"--{option}={_quoted(str(value))}" for option, value in options.items() if value is not None]
    return [*given, "--requeue", *resources.more]


def _quoted(value: str) -> str:
    """A value of an #SBATCH line; sbatch knows double quotes there."""
    return f'"{value}"' if " " in value else value


def _step(resources: Resources) -> list[str]:
    """The srun that starts the processes; it does not take these from the job by itself in every version."""
    words = ["srun", f"--ntasks={resources.tasks}", "--kill-on-bad-exit=0", "--wait=0"]
    if resources.gpus:
        words.append(f"--gpus-per-task={resources.gpus}")
    if resources.cpus is not None:
        words.append(f"--cpus-per-task={resources.cpus}")
    return words


_TEMPLATE = """#!/bin/bash
{head}

{setup}
# SLURM tells this shell two minutes before the end of the time (--signal above); srun hands it on to every process.
# fastgen then finishes its batch, saves, and ends with 75, which means: run the same command again.
# shellcheck disable=SC2329
warn() {{ again=1; kill -USR1 "${{step:-}}" 2>/dev/null; }}
trap warn USR1 TERM

{step} \\
    {command} &
step=$!
while again=; wait "$step"; code=$?; [ "$again" ]; do :; done    # a signal ends `wait`, too; then wait once more

# SLURM_JOB_ID alone will not do: of one task of an array it is the number of the whole array.
job=${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}${{SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}}
# A job that scancel ended is COMPLETING by now and stays ended; SLURM requeues a preempted one, unless we are faster.
if [ "$code" = 75 ] && [ "$(squeue --noheader --jobs="$job" --format=%T)" = RUNNING ]; then
    echo "saved; back into the queue"
    scontrol requeue "$job" && sleep 60
fi
exit "$code"
"""
