"""Write a bank that the reader is sure to accept; every bank maker ends here."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fastgen.bank.read import check_file
from fastgen.errors import BankError
from fastgen.files import atomic_file
from fastgen.records import Header, Row


def write_bank(
    path: str | Path, header: Header | Mapping[str, Any], rows: Iterable[Row | Mapping[str, Any]]
) -> Path:
    """Write header and rows, streamed; the file appears only after all of it has passed the reader's check.

    Args:
        path: of the bank, conventionally `*.jsonl`; an existing file is replaced.
        header: line 1, as a `Header` or as its JSON object.
        rows: the other lines, as `Row` or as JSON objects; at least one. Reference files are not looked for.

    Returns:
        The path.

    Raises:
        BankError: the bank would not be readable; nothing has been written.
        OutputError: the path cannot be written.
    """
    with atomic_file(path) as handle:
        handle.write(_line(path, 1, header))
        for number, row in enumerate(rows, start=2):
            handle.write(_line(path, number, row))
        handle.flush()
        check_file(Path(handle.name), str(path), references=False)
    return Path(path)


def _line(path: str | Path, number: int, record: Header | Row | Mapping[str, Any]) -> bytes:
    """Return one line with its line break."""
    value = record.to_json() if isinstance(record, (Header, Row)) else record
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise BankError(
            [f"{path}:{number}: the line: got {error}, allowed: JSON values, finite numbers, UTF-8"]
        ) from None
