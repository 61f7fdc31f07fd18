"""How far a run is: a live bar on a terminal, else one plain line per shard; both on standard error."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class RunProgress:
    """Counts images; a context manager.

    Attributes:
        rows: rows of this rank in all; None while the plan is not finished.
        made: images finished since the start of this process.
        failed: those of them that have a status other than good.
    """

    def __init__(self, *, quiet: bool = False, watch: "Callable[[RunProgress], None] | None" = None) -> None:
        """Prepare; `expect` says how much there is to do.

        Args:
            quiet: show nothing.
            watch: called with this object whenever a number has changed.
        """
        self.rows: int | None = None
        self._watch = watch
        self._before = self._failed_before = 0
        self.made = self.failed = 0
        self._quiet = quiet
        self._start = time.perf_counter()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> "RunProgress":
        """Start the clock; show the bar if standard error is a terminal."""
        self._start = time.perf_counter()
        if not self._quiet and sys.stderr.isatty():
            self._bar = _bar()
            self._bar.start()
            self._task = self._bar.add_task("images", total=self.rows, completed=self.done, rate="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.stop()

    def expect(self, rows: int | None, *, there: int, failed: int = 0) -> None:
        """Say what there is to do.

        Args:
            rows: rows of this rank in all, or None if nobody knows yet.
            there: rows on the disk now, those made by this process included.
            failed: those of them without a good image.
        """
        self.rows, self._before, self._failed_before = rows, there - self.made, failed - self.failed
        if self._watch is not None:
            self._watch(self)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=rows, completed=self.done)

    @property
    def done(self) -> int:
        """Rows that are finished, before and by this process."""
        return self._before + self.made

    @property
    def failed_in_all(self) -> int:
        """Finished rows without a good image, before and by this process."""
        return self._failed_before + self.failed

    @property
    def seconds(self) -> float:
        """Since the start of generation."""
        return time.perf_counter() - self._start

    @property
    def rate(self) -> float:
        """Images per second since the start of generation."""
        return self.made / max(self.seconds, 1e-9)

    def image(self, *, good: bool) -> None:
        """Count one image."""
        self.made += 1
        self.failed += not good
        if self._watch is not None:
            self._watch(self)
        if self._bar is not None and self._task is not None:
            trouble = f", {self.failed} failed" if self.failed else ""
            self._bar.update(self._task, advance=1, rate=f"{self.rate:.3g} images/s{trouble}")

    def shard(self, name: str, rows: int) -> None:
        """Say that a shard is on the disk."""
        if self._bar is None and not self._quiet:
            trouble = f", {self.failed} failed" if self.failed else ""
            of, left = "", ""
            if self.rows is not None:
                of = f" of {self.rows}"
                left = f", {_clock((self.rows - self.done) / max(self.rate, 1e-9))} left"
            self.say(f"{name}: {rows} images; {self.done}{of} done{trouble}, {self.rate:.3g} images/s{left}")

    def say(self, line: str) -> None:
        """Print one line above the bar, or plainly."""
        if not self._quiet:
            say(line)


def say(line: str) -> None:
    """Print one line to standard error, at once."""
    print(line, file=sys.stderr, flush=True)


def _bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
    )


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute:02d}:{second:02d}"
