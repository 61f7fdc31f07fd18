"""A process that works in turns: it says a line of JSON when it is ready, and one for every line it is told."""

import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


class Worker:
    """One process, its output read in the background, so that nobody has to wait for it."""

    def __init__(self, command: list[str], *, log: Path, environment: Mapping[str, str], folder: Path) -> None:
        """Start it.

        Args:
            command: program and arguments.
            log: gets what it writes to stderr.
            environment: all of it.
            folder: where it works.
        """
        self.started = time.monotonic()
        self.lines: list[str] = []
        self._log = log
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        with open(log, "w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=dict(environment),
                cwd=folder,
                start_new_session=True,  # a compiler's own processes end with it
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith("{"):
                with suppress(ValueError):
                    self._answers.put(json.loads(line))

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def answer(self, timeout: float = 0.0) -> dict[str, Any] | None:
        """Its next line of JSON; None if there is none in time, or it ends without one."""
        end = time.monotonic() + timeout
        while True:
            ended = not self.alive
            with suppress(queue.Empty):
                return self._answers.get(timeout=0.1)
            if ended or time.monotonic() > end:
                return None

    def ask(self, line: str, *, timeout: float) -> dict[str, Any] | None:
        """Tell it something and wait for what it says to that."""
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended: there is no answer, and `reason` says why
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        return self.answer(timeout)

    def reason(self) -> str:
        """Why there was no answer: how it ended and the end of its log, or that it took too long."""
        code = self._process.poll()
        if code is None:
            return f"no answer after {time.monotonic() - self.started:.0f} s"
        text = self._log.read_text(encoding="utf-8", errors="replace").strip()
        return f"exit code {code}: {text.splitlines()[-1][:300] if text else 'no message'}"

    def stop(self) -> None:
        """End it and all that it started, whatever they do."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(timeout=5)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):  # what was still to be written goes nowhere
                pipe.close()
