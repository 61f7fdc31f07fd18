"""Which images of an output folder to train on: a file that `fastgen filter` writes and `fastgen train` reads.

JSONL: a header, {"fastgen_filter": 1, ...}, and a line for each image, {"id", "keep"} and perhaps more. The folder
itself is never changed.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastgen.errors import FastgenError
from fastgen.fields import show
from fastgen.files import read_jsonl, write_jsonl
from fastgen.shards.read import Output

SELECTION_FORMAT = 1
_LINE = '{"id": text, "keep": true or false}, and image_sha256 if you know it'


def write_selection(path: str | Path, about: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> Path:
    """Write a selection; return its path.

    Args:
        path: the file.
        about: how it was made; any JSON.
        lines: objects with `id`, `image_sha256` and `keep`.

    Raises:
        OutputError: the path cannot be written.
    """
    return write_jsonl(path, [{"fastgen_filter": SELECTION_FORMAT, **about}, *lines])


def select(output: Output, rows: np.ndarray, path: str | Path) -> np.ndarray:
    """Return those of `rows` that a selection keeps, in the same order.

    Args:
        output: the opened folder.
        rows: row numbers, int64 (N,).
        path: the selection; it must name every one of the rows.

    Raises:
        FastgenError: it is no selection, or it was made for other images.
    """
    lines = _read(path)
    ids, hashes = output.column("row_id"), output.column("image_sha256")
    chosen = []
    for row in rows:
        line = lines.get(ids[row])
        if line is None or line.get("image_sha256", hashes[row].decode()) != hashes[row].decode():
            what = "is not in it" if line is None else "has another image now"
            raise FastgenError(
                f"{path}: row {ids[row]!r} of {output.path} {what}; make it again: fastgen filter {output.path}"
            )
        if line["keep"]:
            chosen.append(row)
    return np.array(chosen, np.int64)


def _read(path: str | Path) -> dict[str, dict[str, Any]]:
    """Id -> line."""
    lines = read_jsonl(path)
    header = next(lines, None)
    if not isinstance(header, dict) or header.get("fastgen_filter") != SELECTION_FORMAT:
        allowed = f'a header {{"fastgen_filter": {SELECTION_FORMAT}}}, as `fastgen filter` writes it'
        raise FastgenError(f"{path}:1: got {show(header)}, allowed: {allowed}")
    found: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=2):
        if not isinstance(line, dict) or type(line.get("id")) is not str or type(line.get("keep")) is not bool:
            raise FastgenError(f"{path}:{number}: got {show(line)}, allowed: {_LINE}")
        if line["id"] in found:
            raise FastgenError(f"{path}:{number}: id {line['id']!r} is there twice; remove one of the two lines")
        found[line["id"]] = line
    return found
