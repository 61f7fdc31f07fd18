"""Whether run.json and the ranks' reports say what the shards hold, and are as they were written."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastgen.errors import OutputError
from fastgen.files import sha256_json
from fastgen.shards.layout import Layout, missing_ranks, pretty, read_json
from fastgen.shards.schema import STATUS_NAMES, RunIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What verify saw in one shard file.

    Attributes:
        rank: that the file's name says.
        rows: in it.
        sha256: of the image data, as the file says.
        file_sha256: the file's seal.
        status: number of rows by status, int64 (len(STATUS_NAMES),).
    """

    rank: int
    rows: int
    sha256: str
    file_sha256: str | None
    status: np.ndarray


def check_reports(
    layout: Layout, identity: RunIdentity, *, rows: int, stored: dict[str, Stored], damaged: Collection[Path]
) -> Iterator[tuple[Path, str]]:
    """Yield (file that is to blame, problem).

    Args:
        layout: the output folder.
        identity: what plan.json says.
        rows: of the plan.
        stored: file name -> what was seen in it; shards that cannot be read are left out.
        damaged: shards of which more is known already than that they are not as they were written.
    """
    if not layout.run.exists():
        waiting = missing_ranks(layout, identity.world)
        some = ", ".join(map(str, waiting[:20])) + (" ..." if len(waiting) > 20 else "")
        ranks = f" (no report of rank {some})" if waiting else ""
        yield layout.run, f"run.json is missing: the run is not finished{ranks}; run the same command again"
        return
    report, problem = _read(layout.run)
    if report is not None:
        problem = _altered(layout.run, report, identity, stored) or _miscounted(report, rows=rows, stored=stored)
    if problem:
        yield layout.run, problem
    if report is None or problem.startswith("run.json is not as"):
        return
    yield from _check_list(layout, report, stored, damaged)
    for rank in range(identity.world) if identity.world > 1 else ():
        if problem := _check_rank(layout, report, rank):
            yield layout.rank_report(rank), problem


def _read(path: Path) -> tuple[dict[str, Any] | None, str]:
    """The content of a report, or None and what is wrong with it."""
    try:
        report = read_json(path)
    except OutputError as error:
        return None, str(error)
    if not isinstance(report, dict):
        return None, f"{path.name} holds no object, so that it is not as it was written; run the same command again"
    return report, ""


def _altered(path: Path, report: dict[str, Any], identity: RunIdentity, stored: dict[str, Stored]) -> str:
    """Whether run.json was edited: its text and its own hash, which those of old versions lack."""
    is_old = "sha256" not in report and all(file.file_sha256 is None for file in stored.values())
    content = {name: value for name, value in report.items() if name != "sha256"}
    is_same = report.get("sha256") == sha256_json(content) and path.read_text(encoding="utf-8") == pretty(report)
    if not is_old and not is_same:
        return "run.json is not as it was written (its own sha256 says so); delete it and run the same command again"
    if report.get("plan_id", identity.plan_id) != identity.plan_id:
        return "run.json is of another run than plan.json: one of the two was exchanged or edited"
    return ""


def _miscounted(report: dict[str, Any], *, rows: int, stored: dict[str, Stored]) -> str:
    total = sum((file.status for file in stored.values()), np.zeros(len(STATUS_NAMES), np.int64))
    counts = dict(zip(STATUS_NAMES, map(int, total), strict=True))
    if report.get("rows") == rows and report.get("counts") == counts:
        return ""
    said = f"run.json counts {report.get('counts')} of {report.get('rows')} rows"
    return f"{said}, the shards hold {counts} of {rows}"


def _check_list(
    layout: Layout, report: dict[str, Any], stored: dict[str, Stored], damaged: Collection[Path]
) -> Iterator[tuple[Path, str]]:
    """The shards that run.json lists are those that are there, bit for bit."""
    listed = {str(entry["name"]): entry for entry in report.get("shards", [])}
    there = {path.name for _, _, path in layout.shard_files()}
    for name in sorted({*listed, *there}):
        path = layout.shards / name
        if name not in there:
            yield layout.run, f"{name}: run.json lists this shard, but it is gone"
        elif name not in listed:
            yield path, f"{name}: run.json does not list this shard"
        elif name in stored:
            entry, seen = listed[name], stored[name]
            if (seen.rows, seen.sha256) != (entry["rows"], entry["sha256"]):
                yield path, f"{name}: run.json has other rows or another sha256 for it"
            elif path not in damaged and seen.file_sha256 != entry.get("file_sha256", seen.file_sha256):
                yield path, f"{name}: is not the file that run.json lists, though all of its rows are"


def _check_rank(layout: Layout, report: dict[str, Any], rank: int) -> str:
    """What is wrong with the report of a rank beside run.json; "" if nothing."""
    path = layout.rank_report(rank)
    if not path.exists():
        return f"{path.name} is missing; run rank {rank} again"
    own, problem = _read(path)
    if own is None:
        return problem
    rest = {name: value for name, value in own.items() if name != "shards"}
    listed = [entry["name"] for entry in own.get("shards", [])]
    if rest not in report.get("ranks", []) or any(entry not in report["shards"] for entry in own.get("shards", [])):
        return f"{path.name} is not as run.json has it; delete both and run rank {rank} again"
    return "" if listed or not rest.get("rows") else f"{path.name} lists no shards"
