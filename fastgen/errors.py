"""What can go wrong, as one tree; every message says what it got, what is allowed and what to do.

    FastgenError            the user's input is wrong                      exit code 2
    |- FieldErrors          one JSON object has bad fields (no file, no line: the reader adds them)
    |- BankError            a bank is unusable; lists all its problems
    |- EngineError          an engine is missing, stale or asked for a shape it does not have
    |- ReferenceImageError  a reference image is missing, outside its folder or not an image
    |- ModelError           a model folder is incomplete or of an unknown kind
    |- ChatError            a language model cannot be reached, refuses, or its answers cannot be used
    |- OutputError          an output path cannot be written, or holds something else
    |- DataError            finished, but something is wrong with the data   exit code 1
    |- Interrupted          stopped by a signal after saving its work        exit code 75

Only the command line turns `exit_code` into an exit.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

SHOWN = 20
"""How many problems a message lists before it says how many more there are."""


class FastgenError(Exception):
    """Base of every error a user can cause or repair; goes from one process to another with pickle."""

    exit_code = 2

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from the finished message: the arguments of `__init__` differ between the classes."""
        return _rebuilt, (type(self), self.args, vars(self))


def _rebuilt(kind: type[FastgenError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> FastgenError:
    error = kind.__new__(kind, *arguments)
    vars(error).update(attributes)
    return error


class FieldProblem(NamedTuple):
    """One bad field of a JSON object.

    Attributes:
        field: name as written in the file, with a path for nested ones (`ref.path`, `labels[1]`), or "line"
            when the whole line is at fault.
        got: the offending value, shortened for a terminal.
        allowed: what may stand there, and what to do about it.
    """

    field: str
    got: str
    allowed: str

    def __str__(self) -> str:
        """Return `field 'steps': got 0, allowed: a whole number from 1 to 1000`."""
        where = "the line" if self.field == "line" else f"field {self.field!r}"
        return f"{where}: got {self.got}, allowed: {self.allowed}"


class FieldErrors(FastgenError):
    """One JSON object (a row, a header, a config) has bad fields; `problems` holds all of them."""

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        """Keep the problems; the message has one line for each."""
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class BankError(FastgenError):
    """A bank cannot be used; the message lists its problems, at most `SHOWN` of them.

    Attributes:
        problems: one line each, with file and line number, in the order of the file.
        total: how many there are in all (at least, when `more_possible`).
    """

    def __init__(self, problems: Sequence[str], *, total: int | None = None, more_possible: bool = False) -> None:
        """Build the message from `problems`; `total` counts those that were found but not kept."""
        self.problems = tuple(problems)
        self.total = max(len(self.problems), total or 0)
        lines = list(self.problems[:SHOWN])
        hidden = self.total - len(lines)
        if hidden or more_possible:
            lines.append(f"... and {'at least ' if more_possible else ''}{hidden} more")
        super().__init__("\n".join(lines))


class EngineError(FastgenError):
    """An engine is missing, does not match its sources, or was asked for something it cannot do."""


class ReferenceImageError(FastgenError):
    """A reference image is missing, lies outside its folder, or cannot be read as an image."""


class ModelError(FastgenError):
    """A model folder is incomplete, or a part of it is of a kind we do not know."""


class ChatError(FastgenError):
    """A language model cannot be reached, refuses, or its kept answers are damaged; the message holds no key."""


class OutputError(FastgenError):
    """An output path cannot be written, or something else is in its place."""


class DataError(FastgenError):
    """The command finished, but the data is wrong: failed rows, or damage found by verify."""

    exit_code = 1


class Interrupted(FastgenError):
    """Stopped by a signal after saving its work; the same command continues."""

    exit_code = 75
