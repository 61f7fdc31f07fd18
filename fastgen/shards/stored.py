"""Images as they are stored: compressed bytes, which may wait in memory for less than their pixels would take."""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastgen.errors import OutputError
from fastgen.shards.shard_file import ShardFile


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One image, still deflated.

    Attributes:
        data: the bytes.
        shape: of the image, (H, W, 3).
        path, place: of the shard, and of the row in it.
    """

    data: bytes
    shape: tuple[int, ...]
    path: Path
    place: int

    def decode(self) -> np.ndarray:
        """Return the pixels: uint8 (H, W, 3), RGB, writable.

        Raises:
            OutputError: they are damaged.
        """
        try:
            return np.frombuffer(bytearray(zlib.decompress(self.data)), np.uint8).reshape(self.shape)
        except (zlib.error, ValueError) as error:
            raise OutputError(f"{self.path}: the image of row {self.place} is damaged ({error})") from error


def stored_image(file: ShardFile, place: int) -> StoredImage:
    """Return the image of the row at `place` as it is stored.

    Of a file with other chunks or filters than fastgen's the pixels are read, and deflated here.

    Raises:
        OutputError: the stored image cannot be read.
    """
    shape = file.image_shape
    try:
        if (images := file.deflated_images) is not None:
            unapplied, data = images.read_direct_chunk((place, 0, 0, 0))
            if unapplied == 0:
                return StoredImage(data, shape, file.path, place)
    except Exception as error:  # on damaged data h5py raises nearly anything
        raise OutputError(f"{file.path}: the image of row {place} is damaged ({error})") from error
    return StoredImage(zlib.compress(file.image(place).tobytes(), 1), shape, file.path, place)
