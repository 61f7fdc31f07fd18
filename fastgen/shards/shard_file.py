"""One shard file, read with h5py alone."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from fastgen.errors import OutputError
from fastgen.shards.schema import ATTRIBUTES, FORMAT, NUMBERS, TEXTS, RunIdentity
from fastgen.shards.seal import damage_outside_images


class ShardFile:
    """One shard file, open for reading; a context manager."""

    def __init__(self, path: str | Path, *, check: bool = True, known: bool = False) -> None:
        """Open the file and look whether it is a shard.

        Args:
            path: of the shard.
            check: compare all but the images with the seal first, about a kilobyte per row.
            known: it was opened before and is a shard: do not look or check, which takes ten times as long as opening.

        Raises:
            OutputError: not a file, not HDF5, damaged, or of another format version.
        """
        self.path = Path(path)
        try:
            if check and not known and (damage := damage_outside_images(self.path)):
                raise ValueError(damage)
            self._file = h5py.File(self.path, "r", locking=False)
        except Exception as error:
            raise self._unreadable(error) from error
        if known:
            return
        try:
            problem = self._format_problem()
        except Exception as error:  # on damaged data h5py raises nearly anything
            self._file.close()
            raise self._unreadable(error) from error
        if problem:
            self._file.close()
            raise OutputError(f"{self.path}: {problem}; this fastgen reads version {FORMAT} shards")

    def _format_problem(self) -> str:
        """What this file lacks to be a shard that can be read; "" if nothing."""
        version = self.attributes.get("fastgen_shard")
        if version != FORMAT:
            return f"format version is {version}"
        missing = [name for name in ATTRIBUTES if name not in self.attributes]
        there = set(self._file)
        missing += [name for name in ("image", *TEXTS, *NUMBERS) if name not in there]
        if missing:
            return f"lacks {', '.join(missing)}"
        dtype, shape = self.image_type
        if len(shape) != 4:
            return f"image is {dtype} {shape}, not (N, H, W, 3)"
        for name in (*TEXTS, *NUMBERS):
            data = h5py.h5d.open(self._file.id, name.encode())  # h5py.Dataset takes twice as long
            kind = "UTF-8 strings" if name in TEXTS else NUMBERS[name]
            if (h5py.check_string_dtype(data.dtype) is None) if name in TEXTS else data.dtype != kind:
                return f"column {name} is {data.dtype}, not {kind}"
            if data.shape != shape[:1]:
                return f"column {name} has shape {data.shape}, image has {shape[0]} rows"
        return "" if isinstance(self.attributes["classes"], list) else "the attribute classes is no list"

    def _unreadable(self, error: Exception) -> OutputError:
        if isinstance(error, OutputError):
            return error
        return OutputError(
            f"{self.path}: cannot be read as a shard ({error}). Delete this file and run again: "
            "only its rows are made anew"
        )

    def __enter__(self) -> "ShardFile":
        """Nothing to do: the file is open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.image_type[1][0])

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the file as str, int, or list of str."""
        return {name: _plain(value) for name, value in self._file.attrs.items()}

    @cached_property
    def _images(self) -> h5py.Dataset:
        """The image dataset; to look it up by name takes longer than to read a small image."""
        access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
        access.set_chunk_cache(1, 0, 1.0)  # every chunk is one image: a cache is a mebibyte for nothing
        try:
            return h5py.Dataset(h5py.h5d.open(self._file.id, b"image", access), readonly=True)
        except Exception as error:  # another file may have taken the place of a known one
            raise self._unreadable(error) from error

    @cached_property
    def image_type(self) -> tuple[np.dtype, tuple[int, ...]]:
        """Type and shape of the image dataset, as stored."""
        return self._images.dtype, self._images.shape

    @cached_property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image: the same object for all, which may wait in memory by the thousand."""
        return self.image_type[1][1:]

    @cached_property
    def deflated_images(self) -> h5py.h5d.DatasetID | None:
        """The image dataset, if its chunks are single images that are deflated and nothing else, as fastgen writes."""
        images = self._images
        settings = images.id.get_create_plist()
        filters = [settings.get_filter(number)[0] for number in range(settings.get_nfilters())]
        as_written = images.chunks == (1, *images.shape[1:]) and filters == [h5py.h5z.FILTER_DEFLATE]
        return images.id if as_written else None

    def image(self, place: int) -> np.ndarray:
        """Return the image of the row at `place`: uint8 (H, W, 3), RGB.

        Raises:
            OutputError: the stored image is damaged.
        """
        images = self._images
        try:
            return images[place]
        except Exception as error:  # on damaged data h5py raises nearly anything
            raise OutputError(f"{self.path}: the image of row {place} is damaged ({error})") from error

    def row(self, place: int) -> dict[str, Any]:
        """Return the resolved row at `place`.

        Raises:
            OutputError: it is damaged.
        """
        try:
            return json.loads(self._file["meta"].asstr()[place])
        except Exception as error:
            raise OutputError(f"{self.path}: the meta of row {place} is damaged ({error})") from error

    def column(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return a column, (N,), or its rows from `start` to before `stop`: texts as str objects, numbers in the type
        of schema.NUMBERS.

        Raises:
            OutputError: there is no such column, or it is damaged.
        """
        if name not in TEXTS and name not in NUMBERS:
            raise OutputError(f"got column {name!r}; allowed: {', '.join((*TEXTS, *NUMBERS))}")
        try:
            data = self._file[name]
            return data.asstr()[start:stop] if name in TEXTS else data[start:stop]
        except Exception as error:
            raise OutputError(f"{self.path}: the column {name!r} is damaged ({error})") from error

    def check_identity(self, identity: RunIdentity, *, rank: int, shard: int) -> list[str]:
        """List the attributes that differ from those of the run; empty when the file belongs to it."""
        expected = {
            "bank_sha256": identity.bank_sha256,
            "engine_fingerprint": identity.engine_fingerprint,
            "plan_id": identity.plan_id,
            "classes": list(identity.classes),
            "rank": rank,
            "world": identity.world,
            "shard": shard,
        }
        problems = [
            f"attribute {name} is {self.attributes[name]!r}, this run has {value!r}"
            for name, value in expected.items()
            if self.attributes[name] != value
        ]
        dtype, shape = self.image_type
        if shape[1:] != (identity.height, identity.width, 3) or dtype != np.uint8:
            wanted = (identity.height, identity.width, 3)
            problems.append(f"images are {dtype} {shape[1:]}, this run has uint8 {wanted}")
        return problems

    def data_sha256(self) -> tuple[str, list[int]]:
        """Hash all images in file order; also list the places whose own `image_sha256` does not hold.

        Raises:
            OutputError: an image is damaged so that it cannot be read at all.
        """
        digest, wrong = hashlib.sha256(), []
        own = self.column("image_sha256")
        for place in range(len(self)):
            data = self.image(place).tobytes()
            digest.update(data)
            if hashlib.sha256(data).hexdigest().encode() != own[place]:
                wrong.append(place)
        return digest.hexdigest(), wrong


def _plain(value: Any) -> Any:
    """HDF5 attribute as str, int, or list of str."""
    if isinstance(value, np.ndarray):
        return [item.decode() if isinstance(item, bytes) else str(item) for item in value]
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value
