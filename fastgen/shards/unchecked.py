"""Shards that wait for the check of the bank: whole files, on the disk, without a final name.

A bank that takes minutes to check is checked while its first images are made. Their shards end in `.unchecked`,
survive the end of the process, and get their final names (`promote`) when plan.jsonl is there, which says that the
check has passed. If it has not, they are deleted (`discard`).
"""

from itertools import groupby
from pathlib import Path

from fastgen.errors import OutputError
from fastgen.files import publish
from fastgen.shards.layout import UNCHECKED, Layout
from fastgen.shards.schema import RunIdentity
from fastgen.shards.shard_file import ShardFile


def unchecked_files(layout: Layout, rank: int) -> list[tuple[int, Path]]:
    """(shard, path) of every shard file of a rank that waits, sorted."""
    files = layout.shard_files(rank, unchecked=True)
    return [(shard, path) for _, shard, path in files if path.name.endswith(UNCHECKED)]


def refuse_foreign(layout: Layout, identity: RunIdentity, rank: int) -> None:
    """Check that the shards that wait belong to this run.

    Raises:
        OutputError: they were made from another bank, or with other arguments.
    """
    for shard, path in unchecked_files(layout, rank):
        with ShardFile(path) as file:
            problems = file.check_identity(identity, rank=rank, shard=shard)
        if problems:
            raise OutputError(
                f"{path}: was made with another bank, engine or options ({problems[0]}), so it cannot be continued. "
                f"Give the old ones, or choose another --out (or delete {layout.shards}/*{UNCHECKED}) to start anew"
            )


def promote(layout: Layout, rank: int) -> None:
    """Give a rank's waiting shards their final names, now that plan.jsonl is there.

    A row's line was resolved before plan.jsonl was written, perhaps by another machine, whose CLIP may give another
    last digit. A file with a row that the plan does not have is deleted; its rows are made again.

    Raises:
        OutputError: a file cannot be read or renamed.
    """
    waiting = unchecked_files(layout, rank)
    if not waiting:
        return
    with open(layout.plan, encoding="utf-8", errors="replace", newline="\n") as plan:
        lines = enumerate(plan)
        for _, group in groupby(waiting, key=lambda entry: entry[0]):
            rows = {path: _rows(path) for _, path in group}
            wanted = {index for own in rows.values() for index in own}
            last, planned = max(wanted), dict[int, str]()
            for number, line in lines:
                if number in wanted:
                    planned[number] = line.removesuffix("\n")
                if number >= last:
                    break
            for path, own in rows.items():
                if all(planned.get(index) == line for index, line in own.items()):
                    publish(path, path.with_name(path.name.removesuffix(UNCHECKED)), sync=False)
                else:
                    path.unlink()


def discard(layout: Layout, rank: int) -> int:
    """Delete a rank's waiting shards: the bank has not passed. Returns their number."""
    waiting = unchecked_files(layout, rank)
    for _, path in waiting:
        path.unlink()
    return len(waiting)


def _rows(path: Path) -> dict[int, str]:
    """Plan index -> line of every row of a shard file."""
    with ShardFile(path) as file:
        return {int(i): str(line) for i, line in zip(file.column("plan_index"), file.column("meta"), strict=True)}
