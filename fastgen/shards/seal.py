"""The seal: hashes of a shard file, as a last line after its HDF5 data.

HDF5 ends where its own header says, so that no reader sees the line. It holds two SHA-256: of the whole file, and of
all that is not image data, with the range of bytes in which the images lie. The second one costs little to check, and
is checked before HDF5 gets to see a file: on damaged metadata that library may compute for ever.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

MARK = b"\n#fastgen-sha256:"
LENGTH = len(MARK) + 64 + 1 + 64 + 1 + 16 + 1 + 16 + 1
_SEAL = re.compile(re.escape(MARK) + rb"([0-9a-f]{64}):([0-9a-f]{64}):([0-9]{16})-([0-9]{16})\n")
_PIECE = 1 << 20
_HDF5 = b"\x89HDF\r\n\x1a\n"
_CHECKED_LAYOUT = 2
"""Version of the superblock from which on HDF5's metadata has checksums; shards of that layout always have a seal."""


@dataclass(frozen=True, slots=True)
class Seal:
    """What the last line of a shard says.

    Attributes:
        whole: SHA-256 of everything before it, 64 hex digits.
        rest: SHA-256 of the same without the bytes from `start` to `end`, where the images lie.
        start, end: offsets in the file.
    """

    whole: str
    rest: str
    start: int
    end: int


def add_seal(path: Path, *, start: int, end: int) -> None:
    """Append the seal to a closed file.

    Args:
        path: of the file.
        start: offset of the first byte of image data.
        end: of the byte behind the last one.

    Raises:
        OSError: the file cannot be read or written.
    """
    whole, rest = _hashes(path, path.stat().st_size, start, end)
    with open(path, "ab") as handle:
        handle.write(MARK + f"{whole}:{rest}:{start:016d}-{end:016d}\n".encode())


def read_seal(path: Path) -> Seal | None:
    """Return what the file's last line says, or None where it is no seal.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as handle:
        handle.seek(max(0, os.fstat(handle.fileno()).st_size - LENGTH))
        found = _SEAL.fullmatch(handle.read())
    if found is None:
        return None
    return Seal(found[1].decode(), found[2].decode(), int(found[3]), int(found[4]))


def is_intact(path: Path) -> bool:
    """Whether the file has a seal and is as it was sealed, to the last bit.

    Raises:
        OSError: the file cannot be read.
    """
    seal = read_seal(path)
    if seal is None:
        return False
    return _hashes(path, path.stat().st_size - LENGTH, seal.start, seal.end) == (seal.whole, seal.rest)


def damage_outside_images(path: Path) -> str:
    """What is wrong with a file before HDF5 looks at it; "" if nothing can be told. Reads little more than the texts.

    Raises:
        OSError: the file cannot be read.
    """
    seal, size = read_seal(path), path.stat().st_size - LENGTH
    if seal is None:
        with open(path, "rb") as handle:
            head = handle.read(len(_HDF5) + 1)
        if head.startswith(_HDF5) and head[-1] >= _CHECKED_LAYOUT:
            return "its seal is gone: it was cut off, or opened for writing"
        return ""
    if not 0 <= seal.start <= seal.end <= size:
        return "its seal is damaged"
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        _feed(handle, seal.start, digest)
        handle.seek(seal.end)
        _feed(handle, size - seal.end, digest)
    return "" if digest.hexdigest() == seal.rest else "it is not as it was written"


def _hashes(path: Path, size: int, start: int, end: int) -> tuple[str, str]:
    """SHA-256 of the first `size` bytes, and of the same without those from `start` to `end`."""
    whole, rest = hashlib.sha256(), hashlib.sha256()
    with open(path, "rb") as handle:
        _feed(handle, min(start, size), whole, rest)
        _feed(handle, min(end, size) - min(start, size), whole)
        _feed(handle, size - min(end, size), whole, rest)
    return whole.hexdigest(), rest.hexdigest()


def _feed(handle: IO[bytes], size: int, *digests: Any) -> None:
    """Read the next `size` bytes in pieces into the digests."""
    while size > 0 and (piece := handle.read(min(_PIECE, size))):
        size -= len(piece)
        for digest in digests:
            digest.update(piece)
