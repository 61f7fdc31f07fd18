"""Write shards in the background: the generator goes on while images are compressed, hashed and stored.

A shard grows under a name that ends in `.part`. It gets its final name only when it is closed and on the
disk, so a process that dies at any moment leaves no damaged file with a final name.
"""

import hashlib
import os
import queue
import re
import secrets
import threading
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from fastgen import __version__
from fastgen.errors import FastgenError, OutputError
from fastgen.files import publish
from fastgen.shards.part_file import PartFile
from fastgen.shards.schema import (
    FORMAT,
    NUMBERS,
    STATUS_NAMES,
    TEXTS,
    PlanRow,
    RunIdentity,
    Sample,
    column_values,
)
from fastgen.shards.seal import add_seal

PART = ".part"
SYSTEM_ERROR = re.compile(r"error message = '([^']*)'")
COMPRESSION_LEVEL = 1  # higher levels save about 3 % more on photographs and take three times as long


class OpenShard:
    """One growing shard file; not thread safe. Holds the planned rows that were written, in plan order."""

    def __init__(
        self,
        path: Path,
        planned: Sequence[PlanRow],
        identity: RunIdentity,
        *,
        short: Path,
        rank: int,
        shard: int,
    ) -> None:
        """Create `<path>.<process>.part` with room for all planned rows.

        Args:
            path: final name if all planned rows are written.
            planned: the rows this file may hold, in the order they are stored.
            identity: attributes shared by the shards of the run.
            short: final name if only some of them are.
            rank: of this process.
            shard: number of the shard within the rank.

        Raises:
            OutputError: the file cannot be made.
        """
        self.path, self.short = path, short
        self.part = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PART}")
        self._planned = planned
        self._place = {row.row.id: place for place, row in enumerate(planned)}
        if len(self._place) < len(planned):
            raise FastgenError(
                f"{path.name}: two rows of the plan have the same id; give every row of the bank its own"
            )
        self._columns: list[dict[str, Any] | None] = [None] * len(planned)
        self._identity = identity
        self._rank, self._shard = rank, shard
        self._digest = hashlib.sha256()
        self._digested = 0
        shape = (len(planned), identity.height, identity.width, 3)
        try:
            # HDF5 1.10's own layout has checksums over all of its metadata; the older one lets a flipped bit in there
            # crash its readers, or keep them busy for ever.
            self._disk = PartFile(self.part)
            self._file = h5py.File(self._disk, "w", libver=("v110", "v110"))
        except OSError as error:
            raise cannot_write(self.part, error) from error
        self._images = self._file.create_dataset(
            "image", shape, np.uint8, chunks=(1, *shape[1:]), maxshape=(None, *shape[1:]), compression="gzip",
            compression_opts=COMPRESSION_LEVEL,
        )  # fmt: skip

    def write(self, sample: Sample) -> None:
        """Store one sample at its row's place; a failed row without an image is stored as black.

        Raises:
            FastgenError: the row is not of this shard, was written before, or its image has the wrong shape.
        """
        place = self._place.get(sample.row.id)
        if place is None or self._columns[place] is not None:
            trouble = "is not planned for" if place is None else "was already written to"
            raise FastgenError(f"row {sample.row.id!r} {trouble} {self.path.name}")
        shape = self._images.shape[1:]
        image = np.zeros(shape, np.uint8) if sample.image is None else np.ascontiguousarray(sample.image)
        if image.shape != shape or image.dtype != np.uint8:
            raise FastgenError(
                f"row {sample.row.id!r}: the image is {image.dtype} {image.shape}, the shard holds uint8 {shape}"
            )
        data = image.tobytes()
        self._images.id.write_direct_chunk((place, 0, 0, 0), zlib.compress(data, COMPRESSION_LEVEL))
        self._disk.check()
        values = column_values(self._planned[place], sample)
        self._columns[place] = {**values, "image_sha256": hashlib.sha256(data).hexdigest()}
        if place == self._digested:
            self._digest.update(data)
            self._digested += 1

    def publish(self) -> Path | None:
        """Close the file and give it its final name; rows never written are left out. None if empty."""
        done = [place for place, values in enumerate(self._columns) if values is not None]
        if not done:
            self.discard()
            return None
        try:
            self._close_gaps(done)
            self._write_columns([self._columns[place] or {} for place in done])
            self._write_attributes()
            start, end = self._image_bytes()
            self._file.close()
            self._disk.close()
            self._disk.check()
            add_seal(self.part, start=start, end=end)
        except (OSError, RuntimeError) as error:  # h5py raises either
            raise cannot_write(self.part, error) from error
        return publish(self.part, self.path if len(done) == len(self._planned) else self.short)

    def discard(self) -> None:
        """Close and delete the unfinished file."""
        self._file.close()
        self._disk.close()
        with suppress(OSError):
            self.part.unlink(missing_ok=True)

    def _close_gaps(self, done: list[int]) -> None:
        """Move the written images together and finish the digest over all of them, in file order."""
        for new, old in enumerate(done):
            if new != old:
                self._images[new] = self._images[old]
        if len(done) < len(self._planned):
            self._images.resize(len(done), axis=0)
        for place in range(self._digested, len(done)):
            self._digest.update(self._images[place].tobytes())

    def _image_bytes(self) -> tuple[int, int]:
        """The range of the file in which the images lie."""
        places: list[tuple[int, int]] = []

        def note(chunk: Any) -> None:  # must return nothing, or HDF5 stops
            places.append((chunk.byte_offset, chunk.byte_offset + chunk.size))

        self._images.id.chunk_iter(note)
        return min(start for start, _ in places), max(end for _, end in places)

    def _write_columns(self, rows: list[dict[str, Any]]) -> None:
        for name in TEXTS:
            texts = np.array([row[name] for row in rows], dtype=object)
            self._file.create_dataset(name, data=texts, dtype=h5py.string_dtype("utf-8"))
        for name, dtype in NUMBERS.items():
            self._file.create_dataset(name, data=np.array([row[name] for row in rows], dtype=dtype))

    def _write_attributes(self) -> None:
        identity, text = self._identity, h5py.string_dtype("utf-8")
        self._file.attrs.update(
            {
                "fastgen_shard": FORMAT,
                "fastgen_version": __version__,
                "bank_sha256": identity.bank_sha256,
                "engine_fingerprint": identity.engine_fingerprint,
                "plan_id": identity.plan_id,
                "rank": self._rank,
                "world": identity.world,
                "shard": self._shard,
                "sha256": self._digest.hexdigest(),
            }
        )
        self._file.attrs.create("classes", np.array(identity.classes, dtype=object), dtype=text)
        self._file.attrs.create("status_names", np.array(STATUS_NAMES, dtype=object), dtype=text)


class ShardWriter:
    """Writes one shard after the other in a thread of its own, used as a context manager.

    The queue is bounded: a slow disk makes `write` wait instead of filling the memory. An error of the thread
        is raised
    by the next call. Leaving the block on an error deletes the unfinished file; finished ones stay.
    """

    def __init__(self, identity: RunIdentity, *, rank: int, queue_size: int = 64) -> None:
        """Prepare; the thread starts on entering.

        Args:
            identity: attributes shared by the shards of the run.
            rank: of this process.
            queue_size: samples that may wait for the disk.
        """
        self._identity = identity
        self._rank = rank
        self._queue: queue.Queue[Sample | None] = queue.Queue(maxsize=queue_size)
        self._open: OpenShard | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="shard-writer", daemon=True)

    def __enter__(self) -> "ShardWriter":
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the thread; an unfinished shard is deleted."""
        self._queue.put(None)
        self._thread.join()
        if self._open is not None:
            self._open.discard()
            self._open = None
        if error is None:
            self._raise()

    def begin(self, path: Path, planned: Sequence[PlanRow], *, short: Path, shard: int) -> None:
        """Open the next shard, which will be `path` with all planned rows, or `short` if it ends before.

        Raises:
            OutputError: the file cannot be made.
        """
        assert self._open is None, "the shard before was not finished"
        self._open = OpenShard(path, planned, self._identity, short=short, rank=self._rank, shard=shard)

    def write(self, sample: Sample) -> None:
        """Hand one sample to the thread; waits while the queue is full.

        Raises:
            Exception: what went wrong in the thread since the last call.
        """
        self._raise()
        self._queue.put(sample)

    def finish(self) -> Path | None:
        """Wait until all samples are stored and publish the shard with the rows it has; None if it has none.

        Raises:
            OutputError: the file cannot be written.
            Exception: what went wrong in the thread since the last call.
        """
        self._queue.join()
        self._raise()
        assert self._open is not None, "begin() comes first"
        path = self._open.publish()
        self._open = None
        return path

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        while (sample := self._queue.get()) is not None:
            try:
                if self._error is None and self._open is not None:
                    self._open.write(sample)
            except (OSError, RuntimeError) as error:  # h5py raises either
                self._error = cannot_write(self._open.part, error) if self._open else error
            except BaseException as error:  # raised again in the main thread
                self._error = error
            finally:
                self._queue.task_done()
        self._queue.task_done()


def cannot_write(path: Path, error: Exception) -> OutputError:
    """The error of a shard file that h5py could not write; of HDF5's long message only the system's words."""
    found = SYSTEM_ERROR.search(str(error))
    reason = found[1] if found else getattr(error, "strerror", None) or str(error)
    return OutputError(
        f"{path}: cannot be written ({reason}); check the path, its permissions and free space, then run the same "
        "command again: finished shards are kept"
    )


def leftovers(shards: Path) -> list[Path]:
    """Return the unfinished files of runs that were killed (or still run)."""
    if not shards.is_dir():
        return []
    return sorted(Path(entry.path) for entry in os.scandir(shards) if entry.name.endswith(PART))
