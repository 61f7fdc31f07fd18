"""`fastgen status`: how far every rank of a run is, from file names and small files; nothing that runs is disturbed."""

import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastgen.cluster.slurm import QueueState, queue
from fastgen.cluster.submit import last_submission
from fastgen.errors import OutputError
from fastgen.production.plan_file import count_lines
from fastgen.shards.layout import SHARD_NAME, Layout, read_json, read_signature
from fastgen.shards.schema import rank_rows, shard_indices
from fastgen.shards.shard_file import ShardFile

SILENCE = 60.0
"""Seconds without a sign after which a rank counts as killed; a living one gives one every five seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankStatus:
    """How far one rank is.

    Attributes:
        rank: its number.
        rows: rows of its share; None while the plan is not finished.
        done: finished rows, failed ones included: those in published shards, and while the rank runs also those in the
            shard that it is writing.
        failed: finished rows without a good image; None if nobody counted them yet.
        images_per_second: of the process that works on it, or that finished it; None if there is none.
        state: finished, running, starting, stopped, failed, killed, queued or missing.
        note: what else is known: host, reason, age of the last sign.
    """

    rank: int
    rows: int | None
    done: int
    failed: int | None
    images_per_second: float | None
    state: str
    note: str

    @property
    def seconds_left(self) -> float | None:
        """Until this rank is finished at its present speed; None if that is unknown."""
        if self.state == "finished":
            return 0.0
        if self.rows is None or not self.images_per_second or self.state != "running":
            return None
        return max(0, self.rows - self.done) / self.images_per_second

    def to_json(self) -> dict[str, Any]:
        """The attributes and `seconds_left`."""
        return {**asdict(self), "seconds_left": self.seconds_left}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """How far a run is.

    Attributes:
        out: the output folder.
        ranks: of every rank, in order.
        job: number of the last SLURM job that `fastgen submit` started for it; None if there is none.
        finished: run.json is there.
    """

    out: Path
    ranks: tuple[RankStatus, ...]
    job: str | None
    finished: bool

    @property
    def rows(self) -> int | None:
        """Rows of the whole plan; None while it is not finished."""
        known = [rank.rows for rank in self.ranks if rank.rows is not None]
        return sum(known) if len(known) == len(self.ranks) else None

    @property
    def done(self) -> int:
        """Finished rows."""
        return sum(rank.done for rank in self.ranks)

    @property
    def failed(self) -> int:
        """Finished rows without a good image, as far as they were counted."""
        return sum(rank.failed or 0 for rank in self.ranks)

    @property
    def images_per_second(self) -> float:
        """Of all ranks that run now."""
        return sum(rank.images_per_second or 0.0 for rank in self.ranks if rank.state == "running")

    @property
    def seconds_left(self) -> float | None:
        """Until the slowest rank is finished; None while that of one is unknown."""
        left = [rank.seconds_left for rank in self.ranks]
        known = [seconds for seconds in left if seconds is not None]
        return max(known, default=0.0) if len(known) == len(left) else None

    def to_json(self) -> dict[str, Any]:
        """All of it, for scripts."""
        names = ("job", "finished", "rows", "done", "failed", "images_per_second", "seconds_left")
        values = {name: getattr(self, name) for name in names}
        return {"out": str(self.out), **values, "ranks": [rank.to_json() for rank in self.ranks]}


def status(out: str | Path) -> RunStatus:
    """Say how far a run is; it may be running, stopped, finished, or only submitted.

    Args:
        out: the output folder.

    Raises:
        OutputError: there is no run in it.
    """
    layout = Layout(Path(out))
    last = last_submission(layout)
    signature = read_json(layout.signature) if layout.out.is_dir() else None
    world = _world(layout, signature, last)
    if world is None:
        signature = read_signature(layout)  # says what is wrong
        world = int(signature["world"])
    rows = _planned(layout) if signature is not None and layout.plan.exists() else None
    waiting = queue(last["job"]) if last is not None else None

    def is_over(job: str | None) -> bool:
        """Whether a task (as 7 or 7_3) belongs to the submitted job and has left the queue."""
        if job is None or last is None or waiting is None or job.split("_")[0] != last["job"]:
            return False
        return int(job.partition("_")[2] or 0) not in waiting

    finished = read_json(layout.run)
    shards = _Shards(layout, signature, rows)
    reports = {report["rank"]: report for report in (finished or {}).get("ranks", [])}
    ranks = []
    for rank in range(world):
        task = None if last is None or waiting is None else waiting.get(rank // int(last["tasks"]))
        report = reports.get(rank) or read_json(layout.rank_report(rank))
        total = None if rows is None else rank_rows(rank, world, rows)
        ranks.append(_rank(layout, rank, total=total, shards=shards, report=report, task=task, is_over=is_over))
    job = None if last is None else str(last["job"])
    return RunStatus(out=layout.out, ranks=tuple(ranks), job=job, finished=finished is not None)


def _world(layout: Layout, signature: dict[str, Any] | None, last: dict[str, Any] | None) -> int | None:
    """Number of ranks, from whoever knows it: the plan, a rank that runs, or the submission."""
    if signature is not None:
        return int(signature["world"])
    for path in sorted(layout.out.glob("progress-r*.json")):
        if (told := read_json(path)) is not None:  # it goes when its rank ends, maybe just now
            return int(told["world"])
    return None if last is None else int(last["array"]) * int(last["tasks"])


def _planned(layout: Layout) -> int:
    """Rows of the plan; run.json knows them, else the lines are counted."""
    report = read_json(layout.run)
    return int(report["rows"]) if report is not None else count_lines(layout.plan)


class _Shards:
    """Rows in published shards. A whole shard has as many as the plan says; only parts of one are opened."""

    def __init__(self, layout: Layout, signature: dict[str, Any] | None, rows: int | None) -> None:
        self._files: dict[int, list[tuple[int, Path]]] = {}
        self._signature, self._rows = signature, rows
        for rank, shard, path in layout.shard_files():
            self._files.setdefault(rank, []).append((shard, path))

    def rows(self, rank: int) -> int:
        """Published rows of a rank."""
        return sum(self._rows_in(rank, shard, path) for shard, path in self._files.get(rank, []))

    def failed(self, rank: int) -> int | None:
        """Published rows of a rank without a good image; reads a column of every shard. None if one is damaged."""
        total = 0
        for _, path in self._files.get(rank, []):
            try:
                with ShardFile(path) as file:
                    total += int((file.column("status") != 0).sum())
            except OutputError:
                return None
        return total

    def _rows_in(self, rank: int, shard: int, path: Path) -> int:
        match = SHARD_NAME.fullmatch(path.name)
        if match and match[3] is None and self._signature is not None and self._rows is not None:
            world, size = int(self._signature["world"]), int(self._signature["shard_size"])
            return len(shard_indices(rank, shard, world=world, shard_size=size, rows=self._rows))
        try:
            with ShardFile(path) as file:
                return len(file)
        except OutputError:
            return 0


def _rank(
    layout: Layout,
    rank: int,
    *,
    total: int | None,
    shards: _Shards,
    report: dict[str, Any] | None,
    task: QueueState | None,
    is_over: Callable[[str | None], bool],
) -> RankStatus:
    """What report, progress file, shards and queue say about a rank, in this order of trust."""
    done = shards.rows(rank)
    if report is not None:
        counts = report["counts"]
        rate = report["made"] / report["seconds"] if report["made"] and report["seconds"] else None
        failed = sum(counts.values()) - counts["good"]
        found: dict[str, Any] = {"failed": failed, "images_per_second": rate, "state": "finished", "note": ""}
    elif (said := _said(layout, rank)) is not None:
        state, note = _state(said, is_over=is_over)
        runs = state in ("running", "starting")
        done = max(done, said["done"] or 0) if runs else done
        total = said["rows"] if total is None else total
        rate = said["images_per_second"] if runs else None
        failed = said["failed"] if runs or state == "stopped" else shards.failed(rank)
        found = {"failed": failed, "images_per_second": rate, "state": state, "note": note}
    else:
        found = {"failed": shards.failed(rank), "images_per_second": None, "state": "missing", "note": "not started"}
    if task is not None and task.state == "PENDING" and found["state"] != "finished":
        found |= {"state": "queued", "note": f"pending: {task.reason}", "images_per_second": None}
    elif task is not None and task.state == "RUNNING" and found["state"] in ("missing", "stopped"):
        found |= {"state": "starting", "note": f"on {task.reason}"}
    return RankStatus(rank=rank, rows=total, done=done, **found)


def _said(layout: Layout, rank: int) -> dict[str, Any] | None:
    """The progress file of a rank; None without one, or when it is damaged."""
    try:
        return read_json(layout.progress(rank))
    except OutputError:
        return None


def _state(said: dict[str, Any], *, is_over: Callable[[str | None], bool]) -> tuple[str, str]:
    """State and note of a rank that has a progress file."""
    age = time.time() - said["updated"]
    where = said["host"] + (f", job {said['slurm_job']}" if said.get("slurm_job") else "")
    state = str(said["state"])
    if state in ("stopped", "failed"):
        return state, str(said.get("reason", "")).splitlines()[0]
    if said["host"] == socket.gethostname() and not _is_alive(said["pid"]):
        return "killed", f"{where}: process {said['pid']} is gone"
    if is_over(said.get("slurm_job")):
        return "killed", f"{where} has ended"
    if age > SILENCE:
        return "killed", f"{where}: no sign for {round(age)} s"
    return state, where


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's process
        return True
    return True
