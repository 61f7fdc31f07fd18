"""What a batch scheduler tells a job: which part of the work is its own (rank of world), and when to stop."""

import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType, TracebackType

from fastgen.errors import FastgenError, Interrupted

STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """This process's share of a run: the rows whose number in the plan is `rank` modulo `world`.

    Args:
        rank: 0 <= rank < world.
        world: number of processes that share the work, >= 1.
        source: where the two numbers came from, in words a user understands.
    """

    rank: int
    world: int
    source: str

    def __str__(self) -> str:
        """One line for the terminal."""
        return f"rank {self.rank} of {self.world} ({self.source})"


def job_share(rank: int | None = None, world: int | None = None, *, environ: Mapping[str, str] | None = None) -> Job:
    """Find rank and world: the flags if given, else SLURM's array task and process number, else 0 of 1.

    A job array whose tasks start several processes with srun counts both: rank = array rank * tasks + process. Flags
    win over SLURM only when they agree with it or say `--rank 0 --world 1` (do not split). `--world` alone makes the
    number of the array task count as it is, so that some tasks can be submitted again by themselves (--array=3,7).

    Args:
        rank: the flag `--rank`, or None.
        world: the flag `--world`, or None.
        environ: environment variables; None takes this process's.

    Raises:
        FastgenError: one flag without the other, a rank outside its world, or flags that contradict SLURM.
    """
    environ = os.environ if environ is None else environ
    if rank is None and world is not None and _is_slurm(environ, world):
        return _share_of_world(world, environ)
    slurm = _slurm_share(environ)
    if rank is None and world is None:
        return slurm or Job(rank=0, world=1, source="one process")
    if rank is None or world is None:
        given, missing = ("--rank", "--world") if world is None else ("--world", "--rank")
        raise FastgenError(f"got {given} without {missing}: give both, or neither (then SLURM's variables hold)")
    if world < 1 or not 0 <= rank < world:
        raise FastgenError(f"got --rank {rank} --world {world}; allowed: --world >= 1 and 0 <= --rank < --world")
    if slurm is not None and world > 1 and (slurm.rank, slurm.world) != (rank, world):
        raise FastgenError(
            f"--rank {rank} --world {world} contradicts SLURM, which says {slurm}: drop the flags to "
            "follow SLURM, or give --rank 0 --world 1 so that this process makes every row"
        )
    return Job(rank=rank, world=world, source="--rank, --world")


def _is_slurm(environ: Mapping[str, str], world: int) -> bool:
    """Whether `--world` alone says enough: SLURM numbers the processes, or there is only one."""
    return world == 1 or "SLURM_ARRAY_TASK_ID" in environ or _task_share(environ) is not None


def _share_of_world(world: int, environ: Mapping[str, str]) -> Job:
    """Rank from SLURM's array task and process number, in a world that the flag names."""
    if world < 1:
        raise FastgenError(f"got --world {world}; allowed: 1 or more")
    task = _number(environ, "SLURM_ARRAY_TASK_ID")
    process, processes = _task_share(environ) or (0, 1)
    started = (_number(environ, "SLURM_ARRAY_TASK_COUNT") or 1) * processes
    source = " and ".join(["--world", *(["SLURM_ARRAY_TASK_ID"] if task is not None else [])])
    source += ", SLURM_PROCID" if processes > 1 else ""
    if started > world or world % processes or (task is None and processes != world):
        raise FastgenError(
            f"--world {world} contradicts SLURM, which starts {started} processes: drop --world to follow SLURM, or "
            f"start {world} processes"
        )
    if started == world and task is not None:
        return Job(rank=_slurm_rank(environ), world=world, source=source)
    rank = (task or 0) * processes + process
    if rank >= world:
        raise FastgenError(
            f"SLURM_ARRAY_TASK_ID={task} is beyond --world {world}: number the tasks of the array from 0 to "
            f"{world // processes - 1}, all of them or some"
        )
    return Job(rank=rank, world=world, source=source)


def _slurm_rank(environ: Mapping[str, str]) -> int:
    share = _slurm_share(environ)
    return share.rank if share is not None else 0


def _slurm_share(environ: Mapping[str, str]) -> Job | None:
    """Rank and world from SLURM's variables, or None if it started only this process."""
    array = _array_share(environ)
    tasks = _task_share(environ)
    if array is None and tasks is None:
        return None
    array_rank, array_world = array or (0, 1)
    task_rank, task_world = tasks or (0, 1)
    names = (["SLURM_ARRAY_TASK_ID/COUNT"] if array else []) + (["SLURM_PROCID/NTASKS"] if tasks else [])
    return Job(rank=array_rank * task_world + task_rank, world=array_world * task_world, source=" and ".join(names))


def _array_share(environ: Mapping[str, str]) -> tuple[int, int] | None:
    task = _number(environ, "SLURM_ARRAY_TASK_ID")
    if task is None:
        return None
    count = _number(environ, "SLURM_ARRAY_TASK_COUNT")
    if count is None:
        raise FastgenError("SLURM_ARRAY_TASK_ID is set but SLURM_ARRAY_TASK_COUNT is not: give --rank and --world")
    first = _number(environ, "SLURM_ARRAY_TASK_MIN") or 0
    step = _number(environ, "SLURM_ARRAY_TASK_STEP") or 1
    last = _number(environ, "SLURM_ARRAY_TASK_MAX")
    place, rest = divmod(task - first, step)
    if rest or not 0 <= place < count or (last is not None and last != first + (count - 1) * step):
        raise FastgenError(
            f"SLURM_ARRAY_TASK_ID={task} is not one of the {count} tasks that start at {first} with step "
            f"{step}: an array must be one regular range (0-9 or 0-9:3); to start only some tasks of one, give the "
            "--world of the whole"
        )
    return place, count


def _task_share(environ: Mapping[str, str]) -> tuple[int, int] | None:
    """Process number and count of an srun step; None where SLURM started a single process."""
    process = _number(environ, "SLURM_PROCID")
    count = _number(environ, "SLURM_STEP_NUM_TASKS") or _number(environ, "SLURM_NTASKS")
    if process is None or count is None or count == 1:
        return None
    in_step = "SLURM_STEP_ID" in environ or "SLURM_STEP_NUM_TASKS" in environ
    if "SLURM_JOB_ID" in environ and not in_step:
        raise FastgenError(
            f"this SLURM job has {count} tasks but fastgen was not started by srun, so only one of them runs "
            "it: start it as `srun fastgen run ...`, or give --rank 0 --world 1 to make every row in this one"
        )
    if process >= count:
        raise FastgenError(f"SLURM_PROCID={process} is not below the {count} tasks of SLURM_NTASKS")
    return process, count


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name)
    if text is None or text == "":
        return None
    if not text.isdigit():
        raise FastgenError(f"the environment variable {name} is {text!r}; allowed: a whole number")
    return int(text)


class StopSignal:
    """While entered, SIGTERM, SIGUSR1 and SIGINT set a flag instead of ending the process.

    Whoever does the work asks `requested` between two batches, saves, and calls `check`. A second SIGINT
    (Ctrl-C) stops at once with KeyboardInterrupt. Outside the main thread, where Python allows no handlers,
    it never triggers.
    """

    def __init__(self) -> None:
        """No handler is installed before the object is entered."""
        self._seen: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    @property
    def requested(self) -> bool:
        """Whether a stop signal came in."""
        return self._seen is not None

    @property
    def name(self) -> str:
        """Name of the signal that came in, such as "SIGTERM"; "" without one."""
        return self._seen.name if self._seen is not None else ""

    def check(self, saved: str = "nothing was lost") -> None:
        """Raise Interrupted if a stop signal came in.

        Args:
            saved: what is on disk now, for the message.

        Raises:
            Interrupted: a stop signal came in (exit code 75).
        """
        if self.requested:
            raise Interrupted(f"stopped by {self.name}: {saved}. Run the same command again to go on")

    def __enter__(self) -> "StopSignal":
        """Install the handlers, remembering the old ones."""
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the old handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._seen is signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._seen = signal.Signals(number)
