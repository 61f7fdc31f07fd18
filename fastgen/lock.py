"""A lock that is a file: one process at a time, and none for ever, because it ends with the process that holds it."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastgen.errors import OutputError


@contextmanager
def file_lock(
    path: Path, *, on_wait: Callable[[], None], on_no_locks: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold the lock, waiting for whoever has it; the file is gone afterwards.

    A file system without locks lets everybody in.

    Args:
        path: of the file; missing parent folders are made.
        on_wait: called once if another process holds the lock; raises not to wait.
        on_no_locks: called if the file system has no locks.

    Raises:
        OutputError: the file cannot be made.
    """
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OutputError(
                f"{path}: cannot be written ({error.strerror}); check the path and permissions"
            ) from error
        try:
            _lock(descriptor, on_wait, on_no_locks)
            if not _is_at(descriptor, path):  # the process before us took the file away while we waited for it
                continue
            try:
                yield
            finally:
                with suppress(OSError):  # the folder is gone, or cannot be written any more: the lock ends anyway
                    path.unlink(missing_ok=True)
            return
        finally:
            os.close(descriptor)


def _lock(descriptor: int, on_wait: Callable[[], None], on_no_locks: Callable[[], None]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        on_wait()
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        on_no_locks()


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one that `path` names."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
