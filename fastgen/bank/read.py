"""Read a bank: `check_bank` looks at every line before anything is generated, `Bank.rows` streams the rows.

Neither holds more than one line and a few megabytes, however long the bank is. Lines end in LF (or CR LF),
which the last one may lack. An error names file, line and field, what stands there and what may stand there.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from fastgen.bank.references import ReferenceCheck, reference_check
from fastgen.bank.unique import DuplicateFinder
from fastgen.errors import SHOWN, BankError, FieldErrors, FieldProblem
from fastgen.fields import parse_object, show
from fastgen.files import sha256_file
from fastgen.records import Header, Row

MAX_LINE = 1 << 20
"""Longest line, in bytes."""
_GIVE_UP = 1000
"""Checking stops after so many problems: the bank is of another kind altogether."""
_BOM = b"\xef\xbb\xbf"

RowCheck = Callable[[Row], list[FieldProblem]]


class Bank:
    """A bank on disk whose header has been read.

    Attributes:
        path: of the file.
        header: line 1.
        count: number of rows, or None when the bank was opened without a check.
    """

    def __init__(
        self, path: Path, header: Header, *, sha256: str | None = None, count: int | None = None
    ) -> None:
        """Use `open_bank` or `check_bank` instead."""
        self.path = path
        self.header = header
        self.count = count
        self._sha256 = sha256

    @property
    def sha256(self) -> str:
        """SHA-256 of the file as 64 hex digits, computed once."""
        if self._sha256 is None:
            self._sha256 = sha256_file(self.path)
        return self._sha256

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Yield (line number, row) in the order of the file; the header's defaults are not filled in.

        Raises:
            BankError: at the first bad line.
        """
        with _open(self.path) as handle:
            for line in _lines(handle):
                if line.number == 1:
                    continue
                try:
                    yield line.number, _row(_object(line), self.header)
                except FieldErrors as error:
                    raise BankError([f"{self.path}:{line.number}: {p}" for p in error.problems]) from None


def open_bank(path: str | Path) -> Bank:
    """Read the header only; use it on a bank that `check_bank` has passed.

    Raises:
        BankError: the file cannot be read, or its line 1 is not a good header.
    """
    path = Path(path)
    with _open(path) as handle:
        line = next(_lines(handle), None)
    try:
        return Bank(path, Header.from_json(_object(line) if line else {}))
    except FieldErrors as error:
        raise BankError([f"{path}:1: {p}" for p in error.problems]) from None


def check_bank(
    path: str | Path,
    *,
    refs: str | Path | None = None,
    reference_exists: Callable[[Row], str | None] | None = None,
    row_check: RowCheck | None = None,
) -> Bank:
    """Check every line of a bank in one streaming pass: only good rows, and no id twice.

    Args:
        path: of the bank.
        refs: folder given by the user in place of the header's `defaults.refs`.
        reference_exists: says what is wrong with a row's reference (row.ref is there), or None; it
            replaces the built-in check that `ref.path` is a file inside the refs folder or the bank's.
        row_check: finds more problems of a row, for a caller that knows what its engine can do.

    Raises:
        BankError: with all problems in the order of the file; `SHOWN` of them are in its message.
    """
    return check_file(
        Path(path), str(path), refs=refs, reference_exists=reference_exists, row_check=row_check
    )


def check_file(
    path: Path,
    shown: str,
    *,
    references: bool = True,
    refs: str | Path | None = None,
    reference_exists: Callable[[Row], str | None] | None = None,
    row_check: RowCheck | None = None,
) -> Bank:
    """Do the work of `check_bank`; messages call the file `shown`, `references=False` looks for no image."""
    report = _Report(shown)
    digest = hashlib.sha256()
    header: Header | None = None
    lookup: ReferenceCheck | None = None
    count = 0
    with _open(path) as handle, DuplicateFinder() as ids:
        for line in _lines(handle, digest):
            if report.gave_up:
                break
            if line.problem is not None:
                report.add(line.number, line.problem)
            if line.text is None:
                continue
            try:
                found = _parse(line)
                if line.number == 1:
                    header = Header.from_json(found)
                    lookup = (
                        reference_check(path.parent, header, refs, reference_exists) if references else None
                    )
                    continue
                count += 1
                row = _row(found, header)
            except FieldErrors as error:
                report.add(line.number, *error.problems)
                continue
            if row.id is not None:
                ids.add(row.id, line.number, line.offset)
            if lookup is not None and row.ref is not None and (problem := lookup(row)) is not None:
                report.add(line.number, problem)
            if row_check is not None:
                report.add(line.number, *row_check(row))
        report.add_duplicates(ids, handle)
    if header is None:
        report.add_if_none(
            1, FieldProblem("line", "an empty file", "a header in line 1, then one row per line")
        )
    elif count == 0:
        report.add_if_none(
            2, FieldProblem("line", "the end of the file", "at least one row after the header")
        )
    report.raise_if_any()
    assert header is not None
    return Bank(path, header, sha256=digest.hexdigest(), count=count)


class _Report:
    """The first problems of a bank, by line, and the number of all of them."""

    def __init__(self, shown: str) -> None:
        self.total = 0
        self._shown = shown
        self._kept: list[tuple[int, str]] = []

    @property
    def gave_up(self) -> bool:
        return self.total >= _GIVE_UP

    def add(self, number: int, *problems: FieldProblem) -> None:
        self.total += len(problems)
        if len(self._kept) < SHOWN:
            self._kept += [(number, f"{self._shown}:{number}: {problem}") for problem in problems]

    def add_if_none(self, number: int, problem: FieldProblem) -> None:
        if not self.total:
            self.add(number, problem)

    def add_duplicates(self, ids: DuplicateFinder, handle: IO[bytes]) -> None:
        """Add the ids that occur again, compared as text, and keep the earliest lines of all problems."""
        found, count = ids.duplicates(SHOWN)
        self.total += count
        for again in found:
            id_ = _id_at(handle, again.offset)
            if id_ != _id_at(handle, again.first_offset):  # two ids with one hash
                self.total -= 1
                continue
            allowed = f"an id that no other row has; line {again.first_line} has it already"
            self._kept.append(
                (again.line, f"{self._shown}:{again.line}: {FieldProblem('id', show(id_), allowed)}")
            )
        self._kept = sorted(self._kept, key=lambda kept: kept[0])[:SHOWN]

    def raise_if_any(self) -> None:
        if self.total:
            lines = [text for _, text in self._kept[:SHOWN]]
            raise BankError(lines, total=self.total, more_possible=self.gave_up)


class _Line(NamedTuple):
    """One line: where it starts, its text (None when unreadable), and what is wrong before any JSON."""

    number: int
    offset: int
    text: str | None
    problem: FieldProblem | None = None
    is_cut: bool = False


def _open(path: Path) -> IO[bytes]:
    """Open a bank for reading, or say what is in its place."""
    if path.is_dir():
        raise BankError([f"{path}: got a folder, allowed: a bank, a JSONL file such as prompts/pets.jsonl"])
    try:
        return open(path, "rb")
    except OSError as error:
        reason = error.strerror or str(error)
        raise BankError([f"{path}: cannot be read ({reason}); give the path of a bank (JSONL)"]) from None


def _lines(handle: IO[bytes], digest: Any = None) -> Iterator[_Line]:
    """Yield the lines of a bank, feeding all bytes to `digest`; too long a line is skipped, not held."""
    number = offset = 0
    while raw := handle.readline(MAX_LINE + 1):
        number += 1
        start, length, is_long = offset, len(raw), len(raw) > MAX_LINE
        rest = raw
        while True:
            if digest is not None:
                digest.update(rest)
            offset += len(rest)
            if rest.endswith(b"\n") or not (rest := handle.readline(MAX_LINE)):
                break
            length += len(rest)
        if is_long:
            allowed = f"at most {MAX_LINE} bytes; is this a JSONL file, with one object per line?"
            yield _Line(number, start, None, FieldProblem("line", f"{length} bytes", allowed))
        else:
            yield _decoded(number, start, raw)


def _decoded(number: int, offset: int, raw: bytes) -> _Line:
    """Turn the bytes of a line into text; note a byte order mark, bytes that are not UTF-8, emptiness."""
    problem = None
    if number == 1 and raw.startswith(_BOM):
        raw = raw[len(_BOM) :]
        problem = FieldProblem(
            "line", "a byte order mark", "UTF-8 without it; save the file again as plain UTF-8"
        )
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        got = f"byte 0x{raw[error.start]:02x} at position {error.start}"
        return _Line(
            number, offset, None, FieldProblem("line", got, "UTF-8 text; save the file again as UTF-8")
        )
    if not text.strip():
        empty = FieldProblem("line", "an empty line", "one JSON object in every line; delete the line")
        return _Line(number, offset, None, empty)
    return _Line(number, offset, text.rstrip("\r\n"), problem, not raw.endswith(b"\n"))


def _object(line: _Line) -> dict[str, Any]:
    """Return the JSON object of a line, or raise FieldErrors with what is wrong with the line."""
    if line.problem is not None:
        raise FieldErrors([line.problem])
    return _parse(line)


def _parse(line: _Line) -> dict[str, Any]:
    """Parse the text of a line; a last line that is cut off is called so."""
    assert line.text is not None
    try:
        return parse_object(line.text)
    except FieldErrors as error:
        if not line.is_cut:
            raise
        hint = "; the file ends inside this line: is it cut off? Copy or write it again"
        raise FieldErrors([p._replace(allowed=p.allowed + hint) for p in error.problems]) from None


def _row(found: dict[str, Any], header: Header | None) -> Row:
    """Check a row; a second header gets a message of its own."""
    if "fastgen_bank" in found:
        raise FieldErrors(
            [FieldProblem("fastgen_bank", "a second header", "one header, in line 1; banks are not joined")]
        )
    return Row.from_json(found, header)


def _id_at(handle: IO[bytes], offset: int) -> str:
    """Read the id of the good row that starts at byte `offset`."""
    handle.seek(offset)
    return str(parse_object(handle.readline(MAX_LINE).decode().rstrip("\r\n"))["id"])
