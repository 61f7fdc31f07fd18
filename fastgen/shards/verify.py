"""Check an output folder against its own plan: every row once, every byte as it was written."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from fastgen.errors import FastgenError, OutputError
from fastgen.fields import parse_object
from fastgen.records import Header, Row
from fastgen.shards.layout import SHARD_NAME, UNCHECKED, Layout, plan_id, read_signature
from fastgen.shards.report_check import Stored, check_reports
from fastgen.shards.schema import (
    COLUMNS,
    GOOD,
    STATUS_NAMES,
    PlanRow,
    RunIdentity,
    Sample,
    column_values,
    shard_indices,
)
from fastgen.shards.seal import is_intact, read_seal
from fastgen.shards.shard_file import ShardFile
from fastgen.shards.write import leftovers

NAMED = 5
"""Rows that one problem names before it says how many more there are."""


FOREIGN = "rows that plan.jsonl does not have"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a shard file stands: its run, and what its name says."""

    identity: RunIdentity
    header: Header
    rank: int
    shard: int


@dataclass(slots=True, kw_only=True)
class Findings:
    """What is wrong with an output folder.

    Attributes:
        shards: problems of shard files, by path.
        sealed: of these files, those that are bit for bit as they were written.
        foreign: files with rows that plan.jsonl does not have.
        rows: of plan.jsonl.
        doubled: whether several files hold the same row.
        no_plan: plan.json or plan.jsonl cannot be used, so that nothing was compared with them.
        folder: problems of the plan, of rows that no file or several files hold, of stray files.
        reports: problems of run.json and of the ranks' reports, by path.
    """

    shards: dict[Path, list[str]] = field(default_factory=dict)
    sealed: set[Path] = field(default_factory=set)
    foreign: set[Path] = field(default_factory=set)
    rows: int = 0
    doubled: bool = False
    no_plan: bool = False
    folder: list[str] = field(default_factory=list)
    reports: dict[Path, list[str]] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """All of it, one line each, naming files and rows."""
        shards = [line for lines in self.shards.values() for line in lines]
        return [*shards, *self.folder, *(line for lines in self.reports.values() for line in lines)]


def verify(out: str | Path) -> list[str]:
    """Check everything that can be checked without generating again; memory is 9 bytes per row.

    Args:
        out: the output folder of a finished run.

    Returns:
        What is wrong, one line each, naming files and rows; empty if all is well.

    Raises:
        OutputError: there is no output folder, or nothing in it is of a run.
    """
    return examine(Layout(Path(out))).problems


def examine(layout: Layout) -> Findings:
    """Do the work of `verify`; tells apart what is damaged.

    Raises:
        OutputError: as `verify`.
    """
    try:
        signature = read_signature(layout)
        identity, header = identity_of(signature), Header.from_json(signature["header"])
    except FastgenError as error:
        if not layout.shard_files() and not layout.signature.exists():
            raise
        return Findings(no_plan=True, folder=[str(error)])
    except (KeyError, TypeError) as error:
        lines = [f"{layout.signature}: is not as fastgen run wrote it ({error!r})"]
        return Findings(no_plan=True, folder=lines)
    hashes = _line_hashes(layout.plan)
    findings = Findings(rows=len(hashes))
    seen = np.zeros(len(hashes), np.uint8)
    stored: dict[str, Stored] = {}
    for rank, shard, path in layout.shard_files():
        place = Place(identity=identity, header=header, rank=rank, shard=shard)
        with suppress(OSError):
            if is_intact(path):
                findings.sealed.add(path)
        found: list[str] = []
        try:
            with ShardFile(path) as file:
                for problem in _check_shard(file, place, hashes, seen=seen):
                    found.append(f"{path.name}: {problem}")
                    if problem.startswith(FOREIGN):
                        findings.foreign.add(path)
                stored[path.name] = _stored(file, rank)
        except OutputError as error:
            found.append(str(error))
        if not found and path.name in stored and stored[path.name].file_sha256 and path not in findings.sealed:
            found.append(f"{path.name}: is not as it was written, though all of its rows are (its seal says so)")
        if found:
            findings.shards[path] = found
    findings.doubled = bool((seen > 1).any())
    findings.folder += _check_coverage(layout, seen)
    findings.folder += _check_strangers(layout)
    for path, problem in check_reports(layout, identity, rows=len(hashes), stored=stored, damaged=set(findings.shards)):
        listed = findings.shards if path.parent == layout.shards else findings.reports
        listed.setdefault(path, []).append(problem)
    return findings


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


def _check_shard(file: ShardFile, place: Place, hashes: np.ndarray, *, seen: np.ndarray) -> Iterator[str]:
    """Everything that one file can tell; the columns only where the rows are those of the plan."""
    found = file.check_identity(place.identity, rank=place.rank, shard=place.shard)
    found += _check_rows(file, place, hashes, seen=seen)
    found += _check_images(file)
    yield from found
    if not found:
        yield from _check_columns(file, place.header)


def _stored(file: ShardFile, rank: int) -> Stored:
    seal = read_seal(file.path)
    status = np.clip(file.column("status"), 0, len(STATUS_NAMES) - 1)
    return Stored(
        rank=rank,
        rows=len(file),
        sha256=str(file.attributes["sha256"]),
        file_sha256=None if seal is None else seal.whole,
        status=np.bincount(status, minlength=len(STATUS_NAMES)),
    )


def _line_hash(line: bytes) -> int:
    return int.from_bytes(blake2b(line, digest_size=8).digest(), "little")


def _lines(plan: Path) -> Iterator[bytes]:
    with open(plan, "rb") as handle:
        yield from handle


def _line_hashes(plan: Path) -> np.ndarray:
    """One 64-bit hash per line of plan.jsonl, its end included, uint64 (rows,)."""
    return np.fromiter((_line_hash(line) for line in _lines(plan)), np.uint64)


def _check_rows(file: ShardFile, place: Place, hashes: np.ndarray, *, seen: np.ndarray) -> Iterator[str]:
    """Compare the rows of a file with the plan and count them in `seen`."""
    index, run = file.column("plan_index"), place.identity
    expected = shard_indices(place.rank, place.shard, world=run.world, shard_size=run.shard_size, rows=len(hashes))
    foreign, misplaced = [], []
    # As plain ints: whether a range has one of numpy's is found out by going through the range.
    rows = zip(index.tolist(), file.column("meta"), file.column("row_id"), strict=True)
    for row, (number, meta, row_id) in enumerate(rows):
        if not 0 <= number < len(hashes) or _line_hash(f"{meta}\n".encode(errors="replace")) != hashes[number]:
            foreign.append(f"{row_id!r} (place {row})")
            continue
        if number not in expected:
            misplaced.append(f"{row_id!r}")
        seen[number] = min(seen[number] + 1, 255)
    if foreign:
        yield f"{FOREIGN}: {_named(foreign)}"
    if misplaced:
        yield f"rows that belong to another rank or shard: {_named(misplaced)}"


def _check_images(file: ShardFile) -> Iterator[str]:
    """Types and hashes."""
    dtype, shape = file.image_type
    if dtype != np.uint8 or len(shape) != 4:
        yield f"image is {dtype} {shape}; it must be uint8 (N, H, W, 3)"
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
        ids = [_row_name(n, line) for n, line in enumerate(_lines(layout.plan)) if n in first]
        yield f"rows {what}: {_named(ids, total=int(wrong.sum()))}"


def _row_name(number: int, line: bytes) -> str:
    """The id in a line of the plan; its number where it has none any more."""
    try:
        return repr(parse_object(line.decode())["id"])
    except (FastgenError, KeyError, UnicodeDecodeError):
        return f"line {number + 1} of plan.jsonl"


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
