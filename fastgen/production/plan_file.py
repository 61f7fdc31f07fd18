"""plan.jsonl, the resolved rows of a run: writing it, reading it, and its rows before it is written."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from fastgen.errors import FastgenError
from fastgen.fields import parse_object
from fastgen.files import atomic_file
from fastgen.records import Header, Row
from fastgen.shards.layout import Layout, own_name, publish_first, write_signature
from fastgen.shards.schema import PlanRow


def write_plan(layout: Layout, signature: dict[str, Any], rows: Iterator[Row], *, check: Callable[[], None]) -> None:
    """Write plan.jsonl and plan.json; when several ranks do so at once, all take the first one's.

    Args:
        layout: the output folder.
        signature: content of plan.json.
        rows: resolved and complete, streamed.
        check: called for every row; raises to stop (a signal came in).

    Raises:
        OutputError: the folder cannot be written, or was started with something else meanwhile.
    """
    tmp = own_name(layout.plan)
    try:
        with atomic_file(tmp) as handle:
            for row in rows:
                check()
                handle.write(plan_line(row).encode() + b"\n")
        write_signature(layout, signature)
        publish_first(tmp, layout.plan)
    finally:
        with suppress(OSError):
            tmp.unlink(missing_ok=True)


def plan_line(row: Row) -> str:
    """The line of a row in plan.jsonl, without the line end."""
    return json.dumps(row.to_json(), ensure_ascii=False, allow_nan=False)


class PlanReader:
    """Reads plan.jsonl once from front to back, parsing only the lines that are asked for."""

    def __init__(self, layout: Layout, header: Header) -> None:
        """Open the plan.

        Args:
            layout: the output folder.
            header: of the bank.
        """
        self._path = layout.plan
        self._header = header
        self._handle = open(layout.plan, "rb")  # noqa: SIM115 (closed in close)
        self._next = 0

    def take(self, indices: list[int]) -> list[PlanRow]:
        """Return the rows with these numbers: ascending, and above those of the call before.

        Raises:
            FastgenError: the plan was changed by hand.
        """
        found = []
        for index in indices:
            line = next(islice(self._handle, index - self._next, None), None)
            self._next = index + 1
            if line is None:
                raise FastgenError(f"{self._path}: ends before row {index}; delete the output folder and run again")
            try:
                found.append(_plan_row(index, line.removesuffix(b"\n").decode(), self._header))
            except (FastgenError, UnicodeDecodeError) as error:
                raise FastgenError(f"{self._path}:{index + 1}: {error}; the plan was changed by hand") from error
        return found

    def close(self) -> None:
        """Close the file."""
        self._handle.close()


class PlanStream:
    """The rows that plan.jsonl will have, resolved as they are asked for, while somebody else still writes it."""

    def __init__(self, rows: Iterator[Row], header: Header) -> None:
        """Wrap the rows that `write_plan` would be given.

        Args:
            rows: resolved and complete, streamed.
            header: of the bank.
        """
        self._rows = rows
        self._header = header
        self._next = 0

    def take(self, indices: list[int]) -> list[PlanRow]:
        """Return the rows with these numbers, as `PlanReader.take` does; fewer where the plan ends before.

        Raises:
            FastgenError: the bank, its references or the engine stand in the way of a row.
        """
        found = []
        for index in indices:
            row = next(islice(self._rows, index - self._next, None), None)
            self._next = index + 1
            if row is None:
                break
            found.append(_plan_row(index, plan_line(row), self._header))
        return found


def _plan_row(index: int, line: str, header: Header) -> PlanRow:
    return PlanRow(index=index, line=line, row=Row.from_json(parse_object(line), header))


def count_lines(path: Path, *, limit: int | None = None) -> int:
    """Number of lines of a file, reading it in pieces of 1 MiB; it may stop counting above `limit`."""
    count = 0
    with open(path, "rb") as handle:
        while piece := handle.read(1 << 20):
            count += piece.count(b"\n")
            if limit is not None and count > limit:
                break
    return count
