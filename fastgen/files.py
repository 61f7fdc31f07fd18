"""Files that are either complete or absent, and hashes of them; the only place that renames anything.

Everything is written under a temporary name beside its final one, flushed to the disk, and then renamed. A
process that dies half-way leaves a hidden `.NAME.*.tmp`, never a damaged file with a final name.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from fastgen.errors import FastgenError, OutputError

_DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
_TAKEN = {errno.ENOTEMPTY, errno.EEXIST}
_NO_DIRECTORY_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF}


@contextmanager
def atomic_file(path: str | Path) -> Iterator[IO[bytes]]:
    """Yield a binary handle (its `name` is the temporary path); the file appears when the block succeeds.

    Args:
        path: final name; missing parent folders are made, an existing file is replaced.

    Raises:
        OutputError: the folder cannot be made or written, or the disk is full.
    """
    final = Path(path)
    tmp = _temporary_name(final)
    try:
        with output_errors(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            handle = open(tmp, "xb")
        with output_errors(final, only=_DISK_TROUBLE), handle:  # closing it may fail too
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        publish(tmp, final, sync=False)
    finally:
        with suppress(OSError):
            tmp.unlink(missing_ok=True)


def atomic_write_bytes(path: str | Path, data: bytes) -> Path:
    """Write `data` to `path`, all of it or nothing; return the path.

    Raises:
        OutputError: the path cannot be written.
    """
    with atomic_file(path) as handle:
        handle.write(data)
    return Path(path)


def atomic_write_text(path: str | Path, text: str) -> Path:
    """Write `text` as UTF-8 to `path`, all of it or nothing; return the path.

    Raises:
        OutputError: the path cannot be written.
    """
    return atomic_write_bytes(path, text.encode())


@contextmanager
def atomic_directory(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a fresh folder beside `path`; it becomes `path` when the block succeeds, else it is removed.

    Args:
        path: final name of the folder; missing parents are made.
        replace: an existing folder is moved aside, and removed once the new one is in place.

    Raises:
        OutputError: `path` exists and `replace` is false, or it cannot be written.
    """
    final = Path(path)
    if not replace:
        _refuse_existing(final)
    tmp = _temporary_name(final)
    with output_errors(final):
        tmp.mkdir(parents=True)
    try:
        with output_errors(final, only=_DISK_TROUBLE):
            yield tmp
        with output_errors(final):
            for folder, _, names in os.walk(tmp, topdown=False):
                for name in names:
                    _sync(Path(folder, name))
                _sync(Path(folder))
        if replace:
            _swap_directory(tmp, final)
        else:
            with output_errors(final):
                os.rename(tmp, final)  # refused if something came into being there meanwhile
                _sync(final.parent)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def publish(tmp: str | Path, final: str | Path, *, sync: bool = True) -> Path:
    """Give the finished file `tmp` its final name, in an order that survives a power cut; return `final`.

    Args:
        tmp: a closed file on the same file system as `final`.
        final: takes its place atomically; an existing file is replaced.
        sync: flush the content of `tmp` first; false when the caller has done so.

    Raises:
        OutputError: the rename is not possible.
    """
    with output_errors(Path(final)):
        if sync:
            _sync(Path(tmp))
        os.replace(tmp, final)
        _sync(Path(final).parent)
    return Path(final)


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits, reading it in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while piece := handle.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def canonical_json(value: Any) -> str:
    """Return the one JSON text of `value`: sorted keys, no spaces, ASCII; NaN and infinity: ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sha256_json(value: Any) -> str:
    """Return the SHA-256 of `canonical_json(value)` as 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def write_jsonl(path: str | Path, objects: Iterable[Any]) -> Path:
    """Write one compact JSON object per line (UTF-8, streamed, atomic); return the path.

    Raises:
        OutputError: the path cannot be written.
        ValueError: an object holds NaN or infinity, which JSON does not have.
    """
    with atomic_file(path) as handle:
        for value in objects:
            handle.write(json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n")
    return Path(path)


def read_jsonl(path: str | Path) -> Iterator[Any]:
    """Yield the objects of a JSONL file that fastgen wrote itself; banks are read by `fastgen.bank.read`.

    Raises:
        FastgenError: a line is not JSON (file and line are named), or the file cannot be read.
    """
    try:
        with open(path, "rb") as handle:
            for number, line in enumerate(handle, start=1):
                try:
                    yield json.loads(line)
                except ValueError as error:  # also what bad UTF-8 raises
                    raise FastgenError(f"{path}:{number}: not a line of JSON ({error}); is the file damaged?") from None
    except OSError as error:
        raise FastgenError(f"{path}: cannot be read ({error.strerror or error})") from error


def _temporary_name(final: Path) -> Path:
    return final.with_name(f".{final.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _refuse_existing(final: Path) -> None:
    if final.exists() or final.is_symlink():
        raise OutputError(f"{final}: already exists; remove it or choose another name")


def _swap_directory(tmp: Path, final: Path) -> None:
    """Put `tmp` in the place of `final`; if that fails, what was there before is put back.

    Another process may do the same at any moment: whoever comes last wins, and neither fails.
    """
    moved: list[Path] = []
    with output_errors(final):
        while True:
            old = _temporary_name(final)
            with suppress(FileNotFoundError):
                os.rename(final, old)
                moved.append(old)
            try:
                os.rename(tmp, final)
                break
            except OSError as error:
                if error.errno in _TAKEN:
                    continue  # another process was faster: its folder is complete, and moved aside next
                if moved:
                    os.rename(moved[-1], final)
                raise
        _sync(final.parent)
    for old in moved:
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Flush a file or a folder to the disk; file systems that cannot sync folders are left alone."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(descriptor)


@contextmanager
def output_errors(path: Path, *, only: set[int] | None = None) -> Iterator[None]:
    """Turn an OSError (of the given kinds) into an OutputError that names `path`."""
    try:
        yield
    except OSError as error:
        if only is not None and error.errno not in only:
            raise
        reason = error.strerror or str(error)
        raise OutputError(
            f"{path}: cannot be written ({reason}); check the path, its permissions and free space"
        ) from error
