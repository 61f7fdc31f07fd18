"""Find ids that occur twice in a file of any length, in a few megabytes of memory.

Every id becomes a 64-bit hash. Blocks of (hash, line, offset) are spread over 256 temporary files by the top
bits of the hash, so that equal ids meet in one file; each file is then sorted alone. The reader compares ids
that share a hash by reading them again from the bank.
"""

import heapq
import tempfile
from array import array
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgen.errors import OutputError

_BLOCK = 65_536
"""Rows held in memory before they are spread; a bank of at most this many touches no temporary file."""
_LARGEST = 4_000_000
"""Most entries of one temporary file that are sorted at once; more than that is a bank of copies."""


class Duplicate(NamedTuple):
    """An id on `line` (bytes from `offset`) that was already on `first_line` (from `first_offset`)."""

    line: int
    offset: int
    first_line: int
    first_offset: int


def hash_id(id_: str) -> int:
    """Return 64 well-mixed bits of an id."""
    return int.from_bytes(blake2b(id_.encode(), digest_size=8).digest(), "little")


class DuplicateFinder:
    """Collects ids with `add`, then lists the repeated ones; a context manager that removes its files."""

    def __init__(self, *, block: int = _BLOCK, hasher: Callable[[str], int] = hash_id) -> None:
        """Prepare an empty finder; `block` and `hasher` are changed by tests only."""
        self._pending = array("Q")
        self._block = block
        self._hash = hasher
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> "DuplicateFinder":
        """Return the finder."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the temporary files."""
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, id_: str, line: int, offset: int) -> None:
        """Note that `line`, which starts at byte `offset`, has this id.

        Raises:
            OutputError: the folder for temporary files is full.
        """
        self._pending.extend((self._hash(id_), line, offset))
        if len(self._pending) >= 3 * self._block:
            self._spread()

    def duplicates(self, limit: int) -> tuple[list[Duplicate], int]:
        """Return the `limit` repeated ids with the smallest line numbers, and how many there are at least.

        Equal hashes count as equal ids here; the caller compares the ids themselves.
        """
        if self._folder is None:
            return _repeated(_entries(self._pending), limit)
        self._spread()
        found: list[Duplicate] = []
        total = 0
        for path in sorted(Path(self._folder.name).iterdir()):
            size = path.stat().st_size // 24
            some, count = _repeated(_load(path, min(size, _LARGEST)), limit)
            if count == 0 and size > _LARGEST:
                some, count = _repeated(_load(path, size), limit)
            found = heapq.nsmallest(limit, found + some)
            total += count
        return found, total

    def _spread(self) -> None:
        """Append the pending entries to the file of their bucket."""
        entries = _entries(self._pending)
        bucket = (entries[:, 0] >> np.uint64(56)).astype(np.int64)
        order = np.argsort(bucket, kind="stable")
        ends = np.cumsum(np.bincount(bucket, minlength=256))
        try:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="fastgen-ids-")
            for number, part in enumerate(np.split(entries[order], ends[:-1])):
                if len(part):
                    with open(Path(self._folder.name, f"{number:03d}"), "ab") as handle:
                        handle.write(part.tobytes())
        except OSError as error:
            raise OutputError(
                f"{tempfile.gettempdir()}: no room for temporary files ({error.strerror}); checking a bank "
                "takes 24 bytes per row there: set TMPDIR to a folder with more space"
            ) from error
        self._pending = array("Q")


def _entries(pending: array) -> NDArray[np.uint64]:
    """Return (hash, line, offset) rows, uint64 (N, 3), as a copy."""
    return np.array(pending, dtype=np.uint64).reshape(-1, 3)


def _load(path: Path, count: int) -> NDArray[np.uint64]:
    """Read the first `count` entries of a temporary file, uint64 (count, 3)."""
    return np.fromfile(path, np.uint64, 3 * count).reshape(-1, 3)


def _repeated(entries: NDArray[np.uint64], limit: int) -> tuple[list[Duplicate], int]:
    """Return the first `limit` entries whose hash stands on an earlier line, and the number of all such."""
    entries = entries[np.lexsort((entries[:, 1], entries[:, 0]))]
    again = np.zeros(len(entries), bool)
    again[1:] = entries[1:, 0] == entries[:-1, 0]
    places = np.flatnonzero(again)
    if not len(places):
        return [], 0
    first = np.maximum.accumulate(np.where(again, 0, np.arange(len(entries))))
    kept = places[np.argsort(entries[places, 1], kind="stable")[:limit]]
    return [Duplicate(*map(int, (*entries[i, 1:], *entries[first[i], 1:]))) for i in kept], len(places)
