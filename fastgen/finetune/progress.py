"""How far a fine-tuning is: a live bar on a terminal, else one plain line now and then; both on standard error."""

import sys
import time
from collections.abc import Callable
from typing import Any

LINE_EVERY = 30.0
"""Seconds between two plain lines."""


class Progress:
    """Shows steps, loss and the time that is left; a context manager."""

    def __init__(self, name: str, steps: int, *, say: Callable[[str], None], quiet: bool = False) -> None:
        """Prepare.

        Args:
            name: of what is trained.
            steps: in all.
            say: gets the plain lines.
            quiet: show nothing, as the second and later processes do.
        """
        self.name, self.steps, self.say, self.quiet = name, steps, say, quiet
        self.first = 0
        self.began = self.told = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> "Progress":
        """Show the bar if standard error is a terminal."""
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            texts = TextColumn("{task.description}"), TextColumn("{task.fields[loss]}")
            columns = texts[0], BarColumn(), MofNCompleteColumn(), texts[1], TimeRemainingColumn()
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self.name, total=self.steps, loss="")
        return self

    def __exit__(self, *error: object) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def start(self, step: int) -> None:
        """Training begins, with so many steps behind it."""
        self.first = step
        self.began = self.told = time.monotonic()
        if step and not self.quiet:
            self.say(f"{self.name}: {step} of {self.steps} steps are done already")

    def note(self, step: int, loss: float) -> None:
        """So many steps are done, the last ones with this mean loss."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=step, loss=f"loss {loss:.4f}")
            return
        now = time.monotonic()
        if step < self.steps and now - self.told < LINE_EVERY:
            return
        self.told = now
        pace = (now - self.began) / max(1, step - self.first)
        minutes, seconds = divmod(round(pace * (self.steps - step)), 60)
        left = f"{minutes:02d}:{seconds:02d} left"
        self.say(f"{self.name}: step {step}/{self.steps}, loss {loss:.4f}, {pace:.2f} s/step, {left}")
