"""Move what is damaged out of an output folder, so that the same `fastgen run` makes exactly that again.

Nothing is deleted: it lies in OUT/damaged afterwards. Whether a shard or the plan is to blame where the two differ is
told by the shard's seal: a sealed shard is as it was written.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastgen.errors import FastgenError, OutputError
from fastgen.files import output_errors, publish
from fastgen.shards.layout import SHARD_NAME, Layout, plan_id, plan_ids, read_json, read_signature
from fastgen.shards.shard_file import ShardFile
from fastgen.shards.verify import Findings, examine

DAMAGED = "damaged"
"""Folder inside the output folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What `repair` found and did.

    Attributes:
        problems: as `verify` lists them, before the repair.
        moved: files that were moved, relative to the output folder.
        folder: where they are now.
    """

    problems: list[str]
    moved: list[str]
    folder: Path


def repair(out: str | Path) -> Repair:
    """Move damaged shards, plans and reports into OUT/damaged; then the same `fastgen run` makes what is missing.

    No process may be at work in the folder.

    Args:
        out: the output folder.

    Raises:
        OutputError: there is no output folder, or it cannot be written.
    """
    layout = Layout(Path(out))
    findings = examine(layout)
    wrong = list(dict.fromkeys(_wrong(layout, findings)))
    folder = layout.out / DAMAGED
    for path in wrong:
        _move(path, folder)
    return Repair(
        problems=findings.problems, moved=[path.relative_to(layout.out).as_posix() for path in wrong], folder=folder
    )


def _wrong(layout: Layout, findings: Findings) -> Iterator[Path]:
    """The files to move."""
    plan = _wrong_plan(layout, findings)
    yield from plan
    # Where the plan is to blame, only a shard that is not as it was written is damaged; but where they differ again
    # after the plan was resolved anew, they were made from a plan that was damaged then.
    again = (layout.out / DAMAGED / layout.plan.name).exists()
    kept = findings.sealed - (findings.foreign if again else set())
    shards = [path for path in findings.shards if not plan or path not in kept]
    if plan and layout.signature in plan:
        shards += [path for _, _, path in layout.shard_files() if path not in shards and not _opens(path)]
    yield from shards
    yield from _doubled(layout, findings, {*shards, *findings.shards})
    if layout.shards.is_dir():
        yield from (path for path in sorted(layout.shards.glob("*.h5")) if not SHARD_NAME.fullmatch(path.name))
    if findings.problems:
        ranks = {int(match[2]) for path in shards if (match := SHARD_NAME.fullmatch(path.name))}
        reports = {layout.run, *findings.reports, *(layout.rank_report(rank) for rank in ranks)}
        yield from sorted(path for path in reports if path.exists())


def _wrong_plan(layout: Layout, findings: Findings) -> list[Path]:
    """plan.json and plan.jsonl if they, and not the shards, were changed."""
    there = [path for path in (layout.signature, layout.plan) if path.exists()]
    try:
        signature = read_signature(layout)
    except FastgenError:
        return there
    own = plan_id(signature)
    ids = plan_ids(findings.sealed)
    report = None
    with suppress(OutputError):
        report = read_json(layout.run)
    recorded = report.get("plan_id") if isinstance(report, dict) else None
    # All sealed shards are of one other run; so says run.json too, or there are too many of them to be strangers.
    is_outvoted = len(ids) == 1 and own not in ids and recorded != own
    if findings.no_plan or (is_outvoted and (ids == {recorded} or len(findings.sealed) > 1)):
        return there
    return [layout.plan] if own in plan_ids(findings.sealed & findings.foreign) else []


def _doubled(layout: Layout, findings: Findings, wrong: set[Path]) -> Iterator[Path]:
    """Of files that hold the same row, all but the one that run.json lists, or that comes first."""
    if not findings.doubled:
        return
    listed = set()
    with suppress(OutputError, TypeError, KeyError):
        listed = {entry["name"] for entry in read_json(layout.run)["shards"]}
    there = [path for _, _, path in layout.shard_files() if path not in wrong]
    seen = np.zeros(findings.rows, bool)
    for path in sorted(there, key=lambda path: (path.name not in listed, path.name)):
        with ShardFile(path) as file:
            rows = file.column("plan_index")
        if seen[rows].any():
            yield path
        seen[rows] = True


def _opens(path: Path) -> bool:
    try:
        ShardFile(path).close()
    except OutputError:
        return False
    return True


def _move(path: Path, folder: Path) -> None:
    """Move a file into the folder, under a name that is free there."""
    target, number = folder / path.name, 1
    while target.exists():
        target, number = folder / f"{path.name}.{number}", number + 1
    with output_errors(target):
        folder.mkdir(exist_ok=True)
    publish(path, target, sync=False)
