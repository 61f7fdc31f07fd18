"""What a running rank says about itself, for `fastgen status`: one small file, replaced with the first image and every
five seconds."""

import os
import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fastgen.errors import FastgenError, Interrupted, OutputError
from fastgen.files import atomic_write_text, canonical_json
from fastgen.job import Job
from fastgen.shards.layout import PROGRESS_FORMAT, Layout

if TYPE_CHECKING:
    from fastgen.production.progress import RunProgress

INTERVAL = 5.0
"""Seconds between two writes; a thousand ranks on one network file system must not be felt."""


class Heartbeat:
    """Keeps `progress-r<rank>.json` while entered; a finished rank has none, because its report says it all.

    A thread writes it, so that it is fresh as long as the process lives, also while an engine is loaded or a batch
    takes minutes. The file is a courtesy: nothing is resumed from it, and a write that fails is left out.
    """

    def __init__(self, layout: Layout, job: Job) -> None:
        """Prepare.

        Args:
            layout: the output folder; the caller holds the lock of the rank.
            job: rank and world.
        """
        self._path = layout.progress(job.rank)
        self._ended = False
        self._news = threading.Event()  # the state has changed: the thread writes now
        self._thread = threading.Thread(target=self._work, name="heartbeat", daemon=True)
        self._facts: dict[str, Any] = {
            "fastgen_progress": PROGRESS_FORMAT,
            "rank": job.rank,
            "world": job.world,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "slurm_job": _slurm_job(),
            "started": _now(),
            "state": "starting",
            "rows": None,
            "done": None,
            "made": 0,
            "failed": None,
            "images_per_second": None,
        }

    def __enter__(self) -> "Heartbeat":
        """Say that the rank has started, and clear away what a killed process left."""
        for stale in self._path.parent.glob(f".{self._path.name}.*.tmp"):
            with suppress(OSError):
                stale.unlink()
        self._write()
        self._thread.start()
        return self

    def beat(self, progress: "RunProgress") -> None:
        """Take the numbers for the next write; the rate is that of the last image's arrival."""
        before = self._facts["state"]
        self._facts = self._facts | {
            "state": "running" if progress.made else "starting",
            "rows": progress.rows,
            "done": progress.done,
            "made": progress.made,
            "failed": progress.failed_in_all,
            "images_per_second": round(progress.rate, 4) if progress.made else None,
        }
        if self._facts["state"] != before:
            self._news.set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the file of a finished rank; of another one, say how it ended."""
        self._ended = True
        self._news.set()
        self._thread.join()
        if error is None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            return
        self._facts["state"] = "stopped" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed"
        self._facts["reason"] = (str(error) if isinstance(error, FastgenError) else repr(error))[:500]
        self._write()

    def _work(self) -> None:
        while True:
            self._news.wait(INTERVAL)
            self._news.clear()
            if self._ended:
                return
            self._write()

    def _write(self) -> None:
        if not self._path.parent.is_dir():  # a folder that somebody has removed is not made again
            return
        with suppress(OutputError, OSError):
            atomic_write_text(self._path, canonical_json({**self._facts, "updated": _now()}) + "\n")


def _slurm_job() -> str | None:
    """The SLURM job of this process as squeue writes it: 7, or 7_3 in an array."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def _now() -> float:
    """Seconds since 1970, as the clocks of a cluster agree on them."""
    return round(time.time(), 1)
