"""The file on the disk below a growing shard; it never fails HDF5."""

import os
from pathlib import Path


class PartFile:
    """A new file for h5py's driver of Python file objects.

    HDF5 crashes the process when a write fails while it closes a file (a full disk, a quota, a dying disk). So no write
    fails here: the first error is kept in `error`, and all that comes after it is thrown away.

    Attributes:
        error: what went wrong first, or None.
    """

    def __init__(self, path: Path) -> None:
        """Create the file.

        Raises:
            OSError: it is there already, or cannot be made.
        """
        self.error: OSError | None = None
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        self._place = 0
        self._size = 0

    def check(self) -> None:
        """Raise the first error, if there was one.

        Raises:
            OSError: it.
        """
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Close the file; HDF5 must have closed its own before. May be called twice."""
        if self._descriptor >= 0:
            try:
                os.close(self._descriptor)
            except OSError as error:  # network file systems tell here what they could not store
                self._keep(error)
            self._descriptor = -1

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; returns the new place."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        """Return the place."""
        return self._place

    def read(self, size: int) -> bytes:
        """Return that many bytes from the current place; h5py takes only objects that have this."""
        data = bytearray(size)
        self.readinto(memoryview(data))
        return bytes(data)

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer from the current place, with zeros where the file has nothing."""
        data = b""
        if self.error is None:
            try:
                data = os.pread(self._descriptor, len(buffer), self._place)
            except OSError as error:
                self._keep(error)
        buffer[: len(data)] = data
        buffer[len(data) :] = bytes(len(buffer) - len(data))
        self._place += len(buffer)
        return len(buffer)

    def write(self, data: memoryview) -> int:
        """Write all of it at the current place, or keep the error."""
        start = self._place
        self._place += len(data)
        self._size = max(self._size, self._place)
        done = 0
        while self.error is None and done < len(data):
            try:
                done += os.pwrite(self._descriptor, data[done:], start + done)
            except OSError as error:
                self._keep(error)
        return len(data)

    def truncate(self, size: int) -> int:
        """Set the length, or keep the error."""
        self._size = size
        if self.error is None:
            try:
                os.ftruncate(self._descriptor, size)
            except OSError as error:
                self._keep(error)
        return size

    def flush(self) -> None:
        """Nothing is held back here; the file is flushed to the disk when it gets its name."""

    def _keep(self, error: OSError) -> None:
        if self.error is None:
            self.error = error
