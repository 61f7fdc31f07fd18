"""Check an output folder against its own plan: every row once, every byte as it was written."""

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from fastgen.errors import OutputError
from fastgen.fields import parse_object
from fastgen.records import Header, Row
from fastgen.shards.layout import SHARD_NAME, UNCHECKED, Layout, missing_ranks, plan_id, read_json, read_signature
from fastgen.shards.read import ShardFile
from fastgen.shards.schema import (
    COLUMNS,
    GOOD,
    STATUS_NAMES,
    PlanRow,
    RunIdentity,
    Sample,
    column_values,
    shard_indices,
    status_counts,
)
from fastgen.shards.write import leftovers

NAMED = 5
"""Rows that one problem names before it says how many more there are."""


def verify(out: str | Path) -> list[str]:
    """Check everything that can be checked without generating again; memory is 9 bytes per row.

    Args:
        out: the output folder of a finished run.

    Returns:
        What is wrong, one line each, naming files and rows; empty if all is well.

    Raises:
        OutputError: there is no output folder, or it has no plan to compare with.
    """
    layout = Layout(Path(out))
    signature = read_signature(layout)
    identity = identity_of(signature)
    header = Header.from_json(signature["header"])
    hashes = _line_hashes(layout.plan)
    seen = np.zeros(len(hashes), np.uint8)
    total = np.zeros(len(STATUS_NAMES), np.int64)
    problems: list[str] = []
    stored: dict[str, tuple[int, str]] = {}
    for rank, shard, path in layout.shard_files():
        try:
            with ShardFile(path) as file:
                found = file.check_identity(identity, rank=rank, shard=shard)
                found += _check_rows(file, identity, hashes, seen=seen, rank=rank, shard=shard)
                found += _check_images(file)
                if not found:
                    found += _check_columns(file, header)
                stored[path.name] = (len(file), str(file.attributes["sha256"]))
                status = file.column("status")
                total += np.bincount(np.clip(status, 0, len(STATUS_NAMES) - 1), minlength=len(STATUS_NAMES))
        except OutputError as error:
            problems.append(str(error))
            continue
        problems += [f"{path.name}: {problem}" for problem in found]
    problems += _check_coverage(layout, seen)
    problems += _check_reports(layout, identity, rows=len(hashes), total=total, stored=stored)
    problems += _check_strangers(layout)
    return problems


def identity_of(signature: dict[str, Any]) -> RunIdentity:
    """Return what the shards of a run must have in common, from its plan.json."""
    return RunIdentity(
        classes=tuple(signature["header"]["classes"]),
        bank_sha256=signature["bank"]["sha256"],
        engine_fingerprint=signature["engine"]["fingerprint"],
        plan_id=plan_id(signature),
        world=signature["world"],
        shard_size=signature["shard_size"],
        height=signature["engine"]["height"],
        width=signature["engine"]["width"],
    )


def _line_hash(line: str) -> int:
    return int.from_bytes(blake2b(line.encode(), digest_size=8).digest(), "little")


def _lines(plan: Path) -> Iterator[str]:
    with open(plan, encoding="utf-8", newline="\n") as handle:
        for line in handle:
            yield line.removesuffix("\n")


def _line_hashes(plan: Path) -> np.ndarray:
    """One 64-bit hash per line of plan.jsonl, uint64 (rows,)."""
    return np.fromiter((_line_hash(line) for line in _lines(plan)), np.uint64)


def _check_rows(
    file: ShardFile, identity: RunIdentity, hashes: np.ndarray, *, seen: np.ndarray, rank: int, shard: int
) -> Iterator[str]:
    """Compare the rows of a file with the plan and count them in `seen`."""
    index = file.column("plan_index")
    expected = shard_indices(rank, shard, world=identity.world, shard_size=identity.shard_size, rows=len(hashes))
    foreign, misplaced = [], []
    for place, (number, meta, row_id) in enumerate(
        zip(index, file.column("meta"), file.column("row_id"), strict=False)
    ):
        if not 0 <= number < len(hashes) or _line_hash(meta) != hashes[number]:
            foreign.append(f"{row_id!r} (place {place})")
            continue
        if number not in expected:
            misplaced.append(f"{row_id!r}")
        seen[number] = min(seen[number] + 1, 255)
    if foreign:
        yield f"rows that plan.jsonl does not have: {_named(foreign)}"
    if misplaced:
        yield f"rows that belong to another rank or shard: {_named(misplaced)}"


def _check_images(file: ShardFile) -> Iterator[str]:
    """Types, lengths and hashes."""
    dtype, shape = file.image_type
    if dtype != np.uint8 or len(shape) != 4:
        yield f"image is {dtype} {shape}; it must be uint8 (N, H, W, 3)"
        return
    for name in ("row_id", "meta", "status", "plan_index", "image_sha256", "label", "seed"):
        if len(file.column(name)) != shape[0]:
            yield f"column {name} has {len(file.column(name))} rows, image has {shape[0]}"
            return
    digest, wrong = file.data_sha256()
    if wrong:
        ids = file.column("row_id")
        names = [repr(str(ids[place])) for place in wrong]
        yield f"images that are not as they were written: {_named(names)}"
    if digest != file.attributes["sha256"]:
        yield f"sha256 of the image data is {digest}, the file says {file.attributes['sha256']}"


def _check_columns(file: ShardFile, header: Header) -> Iterator[str]:
    """Every column must say what `meta` says, so that neither can be changed unnoticed."""
    columns = {name: file.column(name) for name in COLUMNS if name != "image_sha256"}
    status = file.column("status")
    if (status < 0).any() or (status >= len(STATUS_NAMES)).any():
        yield f"status has numbers beyond 0..{len(STATUS_NAMES) - 1}"
        return
    for place, line in enumerate(columns["meta"]):
        row = Row.from_json(parse_object(line), header)
        sample = Sample(row=row, image=None, status=int(status[place]), reason=str(columns["reason"][place]))
        expected = column_values(PlanRow(index=int(columns["plan_index"][place]), line=line, row=row), sample)
        wrong = [name for name, value in expected.items() if not _same(columns[name][place], value)]
        if wrong:
            yield f"row {row.id!r}: {', '.join(wrong)} not as in meta"
        if (sample.status == GOOD) != (sample.reason == ""):
            yield f"row {row.id!r}: status {STATUS_NAMES[sample.status]} with the reason {sample.reason!r}"


def _check_coverage(layout: Layout, seen: np.ndarray) -> Iterator[str]:
    """Rows that are missing or there twice, by id."""
    for what, wrong in (("missing", seen == 0), ("there more than once", seen > 1)):
        if not wrong.any():
            continue
        first = {int(number) for number in np.flatnonzero(wrong)[:NAMED]}
        ids = [repr(parse_object(line).get("id")) for n, line in enumerate(_lines(layout.plan)) if n in first]
        yield f"rows {what}: {_named(ids, total=int(wrong.sum()))}"


def _check_reports(
    layout: Layout, identity: RunIdentity, *, rows: int, total: np.ndarray, stored: dict[str, tuple[int, str]]
) -> Iterator[str]:
    """run.json must be there and agree with the shards."""
    report = read_json(layout.run)
    if report is None:
        waiting = missing_ranks(layout, identity.world)
        ranks = f" (no report of rank {_named([str(rank) for rank in waiting])})" if waiting else ""
        yield f"run.json is missing: the run is not finished{ranks}; run the same command again"
        return
    counts = status_counts([]) | dict(zip(STATUS_NAMES, map(int, total), strict=True))
    if report.get("rows") != rows or report.get("counts") != counts:
        said = f"run.json counts {report.get('counts')} of {report.get('rows')} rows"
        yield f"{said}, the shards hold {counts} of {rows}"
    listed = {entry["name"]: (entry["rows"], entry["sha256"]) for entry in report.get("shards", [])}
    there = {path.name for _, _, path in layout.shard_files()}
    for name in sorted({*listed, *there}):
        if name not in there:
            yield f"{name}: run.json lists this shard, but it is gone"
        elif name not in listed:
            yield f"{name}: run.json does not list this shard"
        elif name in stored and stored[name] != listed[name]:
            yield f"{name}: run.json has other rows or another sha256 for it"


def _check_strangers(layout: Layout) -> Iterator[str]:
    """Unfinished files, and files that no run wrote."""
    for path in leftovers(layout.shards):
        yield f"{path.name}: left by a run that was killed; run the same command again, it clears them away"
    if layout.shards.is_dir():
        for path in sorted(layout.shards.glob("*.h5")):
            if not SHARD_NAME.fullmatch(path.name):
                yield f"{path.name}: not the name of a shard; move it out of shards/"
        for path in sorted(layout.shards.glob(f"*{UNCHECKED}")):
            yield f"{path.name}: waits for the check of the bank; run the same command again, it is then renamed"


def _named(names: list[str], *, total: int | None = None) -> str:
    total = len(names) if total is None else total
    shown = ", ".join(names[:NAMED])
    return shown + (f" and {total - NAMED} more ({total} in all)" if total > NAMED else "")


def _same(stored: Any, value: Any) -> bool:
    if isinstance(value, float) and np.isnan(value):
        return bool(np.isnan(stored))
    return bool(stored == value)
