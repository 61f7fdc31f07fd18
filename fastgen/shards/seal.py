"""The seal: the SHA-256 of a whole shard file, as a last line after its HDF5 data.

HDF5 ends where its own header says, so that no reader sees the line. Every bit of the file is under the seal, also
those that no dataset holds (attributes, lists of chunks, gaps), and a file that was cut off or opened for writing
has lost it.
"""

import hashlib
import os
import re
from pathlib import Path

MARK = b"\n#fastgen-sha256:"
LENGTH = len(MARK) + 64 + 1
_SEAL = re.compile(re.escape(MARK) + rb"([0-9a-f]{64})\n")
_PIECE = 1 << 20


def add_seal(path: Path) -> str:
    """Append the seal to a closed file; return its SHA-256 without the seal, 64 hex digits.

    Raises:
        OSError: the file cannot be read or written.
    """
    digest = _sha256(path, path.stat().st_size)
    with open(path, "ab") as handle:
        handle.write(MARK + digest.encode() + b"\n")
    return digest


def read_seal(path: Path) -> str | None:
    """Return the SHA-256 that the file's last line tells, or None where there is no such line.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as handle:
        handle.seek(max(0, os.fstat(handle.fileno()).st_size - LENGTH))
        found = _SEAL.fullmatch(handle.read())
    return None if found is None else found[1].decode()


def is_intact(path: Path) -> bool | None:
    """Whether the file is as it was sealed; None where it has no seal.

    Raises:
        OSError: the file cannot be read.
    """
    told = read_seal(path)
    return None if told is None else told == _sha256(path, path.stat().st_size - LENGTH)


def _sha256(path: Path, size: int) -> str:
    """Of the first `size` bytes, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while size > 0 and (piece := handle.read(min(_PIECE, size))):
            digest.update(piece)
            size -= len(piece)
    return digest.hexdigest()
