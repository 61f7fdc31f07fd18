"""What an export writes of every row: a PNG, and the row's columns as JSON values."""

import io
import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fastgen.shards.read import Output
from fastgen.shards.schema import NUMBERS, STATUS_NAMES, TEXTS
from fastgen.shards.stored import StoredImage, stored_image

FIELDS = ("row_id", "class", "label", "prompt", "negative_prompt", "ref_id", "lambda", "clip_score", "lambda_mu",
          "lambda_sigma", "seed", "status", "reason", "plan_index", "meta")  # fmt: skip
"""Columns of a shard that an export keeps; `meta` alone makes the image again."""

PIECE = 64
"""Rows whose images are in memory at once."""

PNG_LEVEL = 1  # lossless at any level; higher ones save a few percent and take several times as long


class Picture(NamedTuple):
    """One row to be written: its number in the output, the bytes of its PNG, and FIELDS as JSON values."""

    number: int
    png: bytes
    fields: dict[str, Any]


def pictures(output: Output, numbers: np.ndarray) -> Iterator[Picture]:
    """Yield rows in the order given, images encoded on all cores.

    Args:
        output: the opened folder.
        numbers: of the rows.

    Raises:
        OutputError: a shard is damaged.
    """
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(numbers), PIECE):
            piece = numbers[start : start + PIECE]
            columns = {name: output.values(name, piece) for name in FIELDS}
            stored = _stored(output, piece)
            yield from (
                Picture(int(piece[i]), png, {name: _plain(name, column[i]) for name, column in columns.items()})
                for i, png in enumerate(pool.map(_png, stored))
            )


def _stored(output: Output, piece: np.ndarray) -> list[StoredImage]:
    """Images of some rows, read file by file: ranks take turns in the plan, and few files stay open."""
    found: dict[int, StoredImage] = {}
    for number in piece[np.argsort(output.of_file[piece], kind="stable")].tolist():
        found[number] = stored_image(output.file(int(output.of_file[number])), int(output.places[number]))
    return [found[number] for number in piece.tolist()]


def _png(stored: StoredImage) -> bytes:
    handle = io.BytesIO()
    Image.fromarray(stored.decode()).save(handle, "PNG", compress_level=PNG_LEVEL)
    return handle.getvalue()


def _plain(name: str, value: Any) -> Any:
    """A value of a column as JSON has it; None for NaN, and the name of a status."""
    if name == "status":
        return STATUS_NAMES[int(value)]
    if name in TEXTS:
        return str(value)
    return (None if math.isnan(value) else float(value)) if NUMBERS[name].kind == "f" else int(value)


def json_line(value: Any) -> str:
    """JSON as the export writes it: compact, UTF-8."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
