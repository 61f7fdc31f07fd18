"""One process per rank of an output folder, as far as the file system can tell."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastgen.errors import OutputError
from fastgen.files import output_errors
from fastgen.lock import file_lock
from fastgen.shards.layout import Layout
from fastgen.shards.write import leftovers


@contextmanager
def rank_lock(layout: Layout, rank: int, *, say: Callable[[str], None] = lambda line: None) -> Iterator[None]:
    """Hold the rank for this process, and clear away what a killed one left; the lock ends with the process.

    A file system without locks lets a second process in. Neither can harm the other's files: every process writes
    under names of its own, and an open file that the second one clears away ends the first one with an error.

    Args:
        layout: the output folder.
        rank: of this process.
        say: told when the file system has no locks.

    Raises:
        OutputError: another process is at work on this rank of this folder, or it cannot be written.
    """

    def refuse() -> None:
        raise OutputError(
            f"{layout.out}: another process is making rank {rank}; wait for it, or split the "
            "work with --rank and --world"
        )

    def warn() -> None:
        say(f"{layout.out}: this file system has no locks: see to it that every rank is started only once")

    with file_lock(layout.out / f".rank-{rank:03d}.lock", on_wait=refuse, on_no_locks=warn):
        with output_errors(layout.shards):
            layout.shards.mkdir(parents=True, exist_ok=True)
            for part in leftovers(layout.shards):
                if f"-r{rank:03d}." in part.name or f"-r{rank:03d}-" in part.name:
                    part.unlink(missing_ok=True)
        yield
