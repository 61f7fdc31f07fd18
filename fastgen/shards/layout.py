"""The output folder: which file lies where, what the finished shards already hold, and who writes run.json.

out/plan.json              what decides the images: bank, engine, seed, arguments; written first, never changed
out/plan.jsonl             the resolved rows, one per image
out/shards/00003-r001.h5   fourth shard of rank 1
out/shards/00003-r001-p0.h5, -p1.h5   the same shard in parts, when the run was stopped by a signal inside it
out/shards/00003-r001.h5.unchecked   whole, but the check of the bank still goes on
out/progress-r001.json     how far rank 1 is; gone when it has finished
out/run-r001.json          rank 1 has finished (only with --world > 1)
out/run.json               every rank has finished
"""

import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastgen.errors import OutputError
from fastgen.files import atomic_write_text, output_errors, sha256_json
from fastgen.shards.schema import RunIdentity, shard_count, shard_indices, status_counts
from fastgen.shards.seal import read_seal
from fastgen.shards.shard_file import ShardFile

PLAN_FORMAT = 1
RUN_FORMAT = 1
PROGRESS_FORMAT = 1
SHARD_NAME = re.compile(r"(\d{5,})-r(\d{3,})(?:-p(\d+))?\.h5")
UNCHECKED = ".unchecked"
"""Ends the name of a whole shard that waits for the check of the bank (see `unchecked`)."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of one output folder."""

    out: Path

    @property
    def plan(self) -> Path:
        """The resolved rows."""
        return self.out / "plan.jsonl"

    @property
    def signature(self) -> Path:
        """What decides the plan and the images."""
        return self.out / "plan.json"

    @property
    def run(self) -> Path:
        """The last file to appear."""
        return self.out / "run.json"

    @property
    def shards(self) -> Path:
        """Folder of the shard files."""
        return self.out / "shards"

    def progress(self, rank: int) -> Path:
        """What an unfinished rank last said about itself."""
        return self.out / f"progress-r{rank:03d}.json"

    def rank_report(self, rank: int) -> Path:
        """Report of a finished rank; with one rank there is only run.json."""
        return self.out / f"run-r{rank:03d}.json"

    def shard(self, rank: int, shard: int, part: int | None = None) -> Path:
        """Name of a shard, or of a part of it."""
        suffix = "" if part is None else f"-p{part}"
        return self.shards / f"{shard:05d}-r{rank:03d}{suffix}.h5"

    def shard_files(self, rank: int | None = None, *, unchecked: bool = False) -> list[tuple[int, int, Path]]:
        """(rank, shard, path) of every file with a final name, sorted; of one rank or of all.

        Args:
            rank: whose files; None for all.
            unchecked: also those that wait for the check of the bank.
        """
        found = []
        if self.shards.is_dir():
            for entry in os.scandir(self.shards):
                match = SHARD_NAME.fullmatch(entry.name.removesuffix(UNCHECKED) if unchecked else entry.name)
                if match and rank in (None, int(match[2])):
                    found.append((int(match[2]), int(match[1]), int(match[3] or 0), Path(entry.path)))
        return [(owner, shard, path) for owner, shard, _, path in sorted(found)]


def write_signature(layout: Layout, signature: Mapping[str, Any]) -> None:
    """Create plan.json, or check that the one there says the same.

    Args:
        layout: the output folder.
        signature: JSON values; everything that decides the plan and the images.

    Raises:
        OutputError: the folder was started with something else (the message names each difference), or holds
            foreign files.
    """
    if not check_signature(layout, signature) and not write_first(layout.signature, pretty(signature)):
        check_signature(layout, signature)


def check_signature(layout: Layout, signature: Mapping[str, Any]) -> bool:
    """Tell whether plan.json is there; raise OutputError if it says something else than `signature`."""
    there = read_json(layout.signature)
    if there is None:
        files = layout.shard_files()
        if not files and not layout.plan.exists():
            return False
        there = read_json(layout.signature)  # another rank writes plan.json before the rest, maybe just now
    if there is None:
        if files and plan_ids(path for _, _, path in files) == {plan_id(signature)}:
            return False  # plan.json was lost, the shards are those of this very command
        raise OutputError(f"{layout.out}: holds a plan.jsonl or shards but no plan.json; choose another --out")
    differences = list(_differences(there, json.loads(json.dumps(signature))))
    if differences:
        raise OutputError(
            f"{layout.out}: was started with something else, so its images cannot be continued:\n"
            + "\n".join(f"  {line}" for line in differences)
            + "\nGive the old values, or choose another --out (or delete the folder) to start anew"
        )
    return True


def read_signature(layout: Layout) -> dict[str, Any]:
    """Return the content of plan.json.

    Raises:
        OutputError: there is no output folder or no plan in it, or it is of another format version.
    """
    signature = read_json(layout.signature) if layout.out.is_dir() else None
    if signature is None or not layout.plan.exists():
        lacks = "no such folder" if not layout.out.is_dir() else "has no plan.json or no plan.jsonl"
        raise OutputError(f"{layout.out}: {lacks}; give the folder that fastgen run wrote (--out)")
    version = signature.get("fastgen_plan") if isinstance(signature, dict) else None
    if version != PLAN_FORMAT:
        raise OutputError(f"{layout.signature}: format version is {version}; this fastgen reads version {PLAN_FORMAT}")
    return signature


def plan_id(signature: Mapping[str, Any]) -> str:
    """Hash of the signature; stored in every shard so that a shard of another run is recognised."""
    return sha256_json(signature)


def plan_ids(paths: Iterable[Path]) -> set[str]:
    """The runs that shard files say they belong to; a file that cannot be read says nothing."""
    found = set()
    for path in paths:
        with suppress(OutputError), ShardFile(path) as file:
            found.add(str(file.attributes["plan_id"]))
    return found


def write_first(path: Path, text: str) -> bool:
    """Write a file unless it is there, atomically even if several ranks try; tell whether it was us."""
    tmp = own_name(path)
    atomic_write_text(tmp, text)
    return publish_first(tmp, path)


def own_name(path: Path) -> Path:
    """Where this process alone gets a file ready; containers on several machines have the same process numbers."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")


def publish_first(tmp: Path, path: Path) -> bool:
    """Give `tmp` (complete and on the disk) the name `path` unless that is taken; `tmp` is gone afterwards.

    Ranks that make the same plan at the same time thereby agree on one: the first wins.
    """
    with output_errors(path):
        try:
            os.link(tmp, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            if path.exists():
                return False
            os.replace(tmp, path)
        finally:
            tmp.unlink(missing_ok=True)
    return True


@dataclass(slots=True, kw_only=True)
class Progress:
    """What a rank has on the disk.

    Args:
        rows: number of rows that are stored.
        complete: numbers of the shards that lack nothing.
        begun: of the other shards that have a file: the plan indices that are stored.
        next_part: number of the next part, per shard number that has parts.
        status: rows by status name, over all files.
        files: for run.json: name, rows, sha256 of the images and sha256 of the whole (its seal) of every file.
    """

    rows: int
    complete: set[int]
    begun: dict[int, set[int]]
    next_part: dict[int, int]
    status: dict[str, int]
    files: list[dict[str, Any]]


def scan(layout: Layout, identity: RunIdentity, *, rank: int, rows: int, unchecked: bool = False) -> Progress:
    """Read what the rank's finished files hold, checking that each belongs to this run.

    Args:
        layout: the output folder.
        identity: what the files must say.
        rank: whose files.
        rows: of the whole plan.
        unchecked: count files that wait for the check of the bank.

    Raises:
        OutputError: a file is damaged, belongs to another run, or holds rows that are not its own.
    """
    progress = Progress(rows=0, complete=set(), begun={}, next_part={}, status=status_counts([]), files=[])
    for _, shard, path in layout.shard_files(rank, unchecked=unchecked):
        expected = shard_indices(rank, shard, world=identity.world, shard_size=identity.shard_size, rows=rows)
        known = progress.begun.setdefault(shard, set())
        with ShardFile(path) as file:
            problems = file.check_identity(identity, rank=rank, shard=shard)
            indices = [int(i) for i in file.column("plan_index")]
            counts = status_counts(file.column("status"))
            images = str(file.attributes["sha256"])
        seal = read_seal(path)
        entry = {"name": path.name, "rows": len(indices), "sha256": images}
        progress.files.append({**entry, "file_sha256": None if seal is None else seal.whole})
        own = not known.intersection(indices) and all(i in expected for i in indices)
        if not own or len(set(indices)) < len(indices) or shard in progress.complete:
            problems.append("holds rows that are not its own, or that another file holds too")
        if problems:
            raise OutputError(
                f"{path}: {'; '.join(problems)}. Delete this file and run again: only its rows are made anew"
            )
        known.update(indices)
        if len(known) == len(expected):
            progress.complete.add(shard)
            progress.begun[shard] = set()  # ten million rows need no memory
        if (match := SHARD_NAME.fullmatch(path.name.removesuffix(UNCHECKED))) and match[3] is not None:
            progress.next_part[shard] = int(match[3]) + 1
        progress.rows += len(indices)
        for name, count in counts.items():
            progress.status[name] += count
    return progress


def finish_rank(layout: Layout, report: Mapping[str, Any], *, rank: int, world: int, common: Mapping[str, Any]) -> bool:
    """Write the finished rank's report; the last rank to do so also writes run.json. Tell whether run.json is
    there.

    Args:
        layout: the output folder.
        report: of this rank: `rank`, `counts`, `shards`, `seconds`, ...
        rank: of this process.
        world: number of ranks.
        common: the part of run.json that all ranks agree on.
    """
    if world > 1:
        atomic_write_text(layout.rank_report(rank), pretty(report))
    reports = [report] if world == 1 else [read_json(layout.rank_report(r)) for r in range(world)]
    ready = [r for r in reports if r is not None]
    if len(ready) < world:
        return False
    counts: dict[str, int] = {}
    for one in ready:
        for name, number in one["counts"].items():
            counts[name] = counts.get(name, 0) + number
    merged = {**common, "counts": counts, "seconds": round(sum(r["seconds"] for r in ready), 3)}
    merged["ranks"] = [{k: v for k, v in r.items() if k != "shards"} for r in ready]
    merged["shards"] = [file for r in ready for file in r["shards"]]
    atomic_write_text(layout.run, pretty({**merged, "sha256": sha256_json(merged)}))
    for stale in layout.out.glob(".*plan.json*"):  # of killed processes; nobody plans any more
        stale.unlink(missing_ok=True)
    return True


def reopen(layout: Layout, rank: int) -> None:
    """Take back run.json and the rank's report: there is work left after all (a shard was deleted, say)."""
    for path in (layout.run, layout.rank_report(rank)):
        with output_errors(path):
            path.unlink(missing_ok=True)


def missing_ranks(layout: Layout, world: int) -> list[int]:
    """Ranks that have not reported yet."""
    return [rank for rank in range(world) if world > 1 and not layout.rank_report(rank).exists()]


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, or None if there is no such file.

    Raises:
        OutputError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be read as JSON ({error}); delete it and run again") from error


def rank_shards(identity: RunIdentity, *, rank: int, rows: int) -> Iterator[tuple[int, range]]:
    """Yield (shard number, plan indices) for every shard of a rank."""
    for shard in range(shard_count(rank, world=identity.world, shard_size=identity.shard_size, rows=rows)):
        yield (
            shard,
            shard_indices(rank, shard, world=identity.world, shard_size=identity.shard_size, rows=rows),
        )


def missing_indices(progress: Progress, shard: int, indices: range) -> list[int]:
    """Plan indices of a shard that no file holds yet, in order."""
    if shard in progress.complete:
        return []
    begun = progress.begun.get(shard, set())
    return [i for i in indices if i not in begun]


def _differences(there: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted({*there, *now}):
        old, new = there.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}: the folder has {json.dumps(old)}, this command has {json.dumps(new)}"


def pretty(value: Mapping[str, Any]) -> str:
    """The text of a JSON file of the folder."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
