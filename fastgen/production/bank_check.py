"""The check of a bank that is too long to wait for, in a process beside the one that makes images.

A process, not a thread: it computes in Python all the time, and a thread would take turns with the generation. It is
a new interpreter, not a fork: PyTorch's threads and CUDA do not survive one.
"""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from fastgen.errors import BankError, FastgenError, Interrupted, OutputError
from fastgen.job import STOP_SIGNALS, StopSignal
from fastgen.production.plan_file import count_lines, write_plan
from fastgen.production.setup import Arguments, EngineFacts, check_everything, planned_rows
from fastgen.shards.layout import Layout

AT_ONCE = 100_000
"""Rows of a bank, and of its plan, that are checked and planned before the first image; about two and ten seconds."""

POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be checked, and where the plan goes.

    Attributes:
        arguments: of the run.
        facts: of the engine.
        layout: the output folder; None to check only.
        signature: content of plan.json; None to check only.
    """

    arguments: Arguments
    facts: EngineFacts
    layout: Layout | None = None
    signature: dict[str, Any] | None = None


def is_long(bank: Path) -> bool:
    """Whether a bank has more than AT_ONCE rows."""
    try:
        return count_lines(bank, limit=AT_ONCE + 1) > AT_ONCE + 1  # the header is a line too
    except OSError:
        return False  # whoever opens it next says why it cannot be read


def is_long_plan(rows: int) -> bool:
    """Whether a plan has more than AT_ONCE rows; a short bank with many references can have one."""
    return rows > AT_ONCE


def check_and_plan(order: Order, *, check: Callable[[], None]) -> None:
    """Check the whole bank, then write its plan.

    Args:
        order: with a layout and a signature, or the plan is not written.
        check: called for every row; raises to stop.

    Raises:
        FastgenError: something stands in the way; nothing is written.
    """
    bank, _ = check_everything(order.arguments, order.facts, check=check)
    if order.layout is None or order.signature is None:
        return
    if bank.sha256 != order.signature["bank"]["sha256"]:
        raise BankError([f"{bank.path}: was changed while it was read; run the same command again"])
    write_plan(order.layout, order.signature, planned_rows(order.arguments, bank, order.facts), check=check)


class BankCheck:
    """`check_and_plan` in another process; a context manager that ends it."""

    def __init__(self, order: Order) -> None:
        """Prepare; the process starts on entering."""
        self._order = order
        self._answer = tempfile.TemporaryFile()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "BankCheck":
        """Start the process; a signal to the terminal's group does not reach it, it ends with this one."""
        paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
        with tempfile.TemporaryFile() as question:
            pickle.dump((os.getpid(), self._order), question)
            question.seek(0)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fastgen.production.bank_check"],
                stdin=question,
                stdout=self._answer,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the process if it still works."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._answer.close()

    @property
    def has_passed(self) -> bool:
        """Whether the bank is good: this process says so, or plan.jsonl is there, perhaps another rank's."""
        assert self._process is not None
        layout = self._order.layout
        return self._process.poll() == 0 if layout is None else layout.plan.exists()

    @property
    def has_failed(self) -> bool:
        """Whether the process ended in another way than by passing."""
        assert self._process is not None
        return self._process.poll() is not None and not self.has_passed

    def passed(self) -> bool:
        """Tell whether the bank has passed; False while nobody knows.

        Raises:
            FastgenError: what stands in the way.
            Interrupted: a signal ended the check.
        """
        if not self.has_failed:
            return self.has_passed
        assert self._process is not None
        code = self._process.returncode
        self._answer.seek(0)
        if data := self._answer.read():
            raise pickle.loads(data)
        if -code in STOP_SIGNALS:
            raise Interrupted(f"the check of the bank was stopped by {signal.Signals(-code).name}; run it again")
        raise OutputError(
            f"the check of {self._order.arguments.bank} ended with code {code} before it was done (is the memory "
            "full?); the images made so far are kept: run the same command again"
        )

    def wait(self, stop: StopSignal | None = None) -> None:
        """Wait until the bank has passed.

        Raises:
            FastgenError: as `passed`; also when `stop` was asked for.
        """
        while not self.passed():
            if stop is not None:
                stop.check()
            time.sleep(POLL_SECONDS)


def main() -> None:
    """The other process: the order comes in on standard input, an error goes out on standard output, pickled."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries print
    parent, order = pickle.load(sys.stdin.buffer)
    with StopSignal() as stop:

        def check() -> None:
            stop.check()
            if os.getppid() != parent:
                raise Interrupted("the run that this check belongs to is gone")

        try:
            check_and_plan(order, check=check)
        except FastgenError as error:
            with answer:
                pickle.dump(error, answer)
            sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
