"""Names, types and attributes of a shard file; docs/formats.md is the same table in prose."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgen.records import Row

FORMAT = 1
"""Version of the shard format, in the file attribute `fastgen_shard`."""

STATUS_NAMES = ("good", "non_finite", "flat", "reference_failed")
"""What the numbers in `status` mean, in order; only `good` rows have an image worth training on."""

GOOD, NON_FINITE, FLAT, REFERENCE_FAILED = range(4)

TEXTS = ("row_id", "prompt", "negative_prompt", "class", "ref_id", "meta", "reason")
NUMBERS: dict[str, np.dtype[Any]] = {
    "label": np.dtype(np.int64),
    "lambda": np.dtype(np.float64),
    "clip_score": np.dtype(np.float64),
    "lambda_mu": np.dtype(np.float64),
    "lambda_sigma": np.dtype(np.float64),
    "seed": np.dtype(np.uint64),
    "status": np.dtype(np.int8),
    "plan_index": np.dtype(np.int64),
    "image_sha256": np.dtype("S64"),
}
COLUMNS = (*TEXTS, *NUMBERS)
"""Every dataset but `image`."""

ATTRIBUTES = (
    "fastgen_shard",
    "fastgen_version",
    "classes",
    "status_names",
    "bank_sha256",
    "engine_fingerprint",
    "plan_id",
    "rank",
    "world",
    "shard",
    "sha256",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One line of plan.jsonl.

    Args:
        index: its line number, counted from 0.
        line: its text without the line end; stored as it is in `meta`.
        row: the parsed row.
    """

    index: int
    line: str
    row: Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What became of one row.

    Args:
        row: the resolved row.
        image: uint8 (H, W, 3) RGB, or None where none could be made.
        status: an index into STATUS_NAMES.
        reason: for a failed row, what went wrong; else "".
    """

    row: Row
    image: np.ndarray | None
    status: int = GOOD
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunIdentity:
    """What every shard of one run has in common; two runs that agree in all of it make the same images.

    Args:
        classes: ordered class names; `label` counts in them.
        bank_sha256: of the bank file.
        engine_fingerprint: of the engine.
        plan_id: hash of everything that decides the plan.
        world: number of ranks that share the run.
        shard_size: rows of a full shard.
        height: of every image, pixels.
        width: of every image, pixels.
    """

    classes: tuple[str, ...]
    bank_sha256: str
    engine_fingerprint: str
    plan_id: str
    world: int
    shard_size: int
    height: int
    width: int


def column_values(planned: PlanRow, sample: Sample) -> dict[str, Any]:
    """Return what the row stores in every column except `image_sha256`; NaN and "" stand for nothing."""
    row = planned.row
    return {
        "row_id": row.id or "",
        "prompt": row.prompt,
        "negative_prompt": row.negative_prompt or "",
        "class": row.class_,
        "ref_id": row.ref.id if row.ref is not None else "",
        "meta": planned.line,
        "reason": sample.reason,
        "label": -1 if row.label is None else row.label,
        "lambda": _number(row.lambda_),
        "clip_score": _number(row.score),
        "lambda_mu": _number(row.lambda_mu),
        "lambda_sigma": _number(row.lambda_sigma),
        "seed": row.seed or 0,
        "status": sample.status,
        "plan_index": planned.index,
    }


def rank_rows(rank: int, world: int, rows: int) -> int:
    """Number of plan rows (of `rows` in all) that belong to `rank`: those with index % world == rank."""
    return len(range(rank, rows, world))


def shard_indices(rank: int, shard: int, *, world: int, shard_size: int, rows: int) -> range:
    """Plan indices of one shard: the rank's rows number shard * shard_size up to (shard + 1) * shard_size."""
    first = rank + shard * shard_size * world
    last = rank + (shard + 1) * shard_size * world
    return range(first, min(last, rows), world)


def shard_count(rank: int, *, world: int, shard_size: int, rows: int) -> int:
    """Number of shards that the rank's rows fill."""
    return math.ceil(rank_rows(rank, world, rows) / shard_size)


def status_counts(status: np.ndarray | Sequence[int]) -> dict[str, int]:
    """Count rows by status name; every name is present."""
    counts = np.bincount(np.asarray(status, dtype=np.int64), minlength=len(STATUS_NAMES))
    return {name: int(counts[code]) for code, name in enumerate(STATUS_NAMES)}


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan
