"""Read shards with h5py alone: one file (`ShardFile`), or an output folder as a list of rows (`open_output`)."""

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from fastgen.errors import OutputError
from fastgen.shards.schema import ATTRIBUTES, FORMAT, GOOD, NUMBERS, STATUS_NAMES, TEXTS, RunIdentity
from fastgen.shards.seal import damage_outside_images

OPEN_FILES = 16
"""Shard files that one Output keeps open."""


class ShardFile:
    """One shard file, open for reading; a context manager."""

    def __init__(self, path: str | Path, *, check: bool = True) -> None:
        """Open the file and read its attributes.

        Args:
            path: of the shard.
            check: compare all but the images with the seal first, about a kilobyte per row.

        Raises:
            OutputError: not a file, not HDF5, damaged, or of another format version.
        """
        self.path = Path(path)
        try:
            if check and (damage := damage_outside_images(self.path)):
                raise ValueError(damage)
            self._file = h5py.File(self.path, "r", locking=False)
        except Exception as error:
            raise self._unreadable(error) from error
        try:
            self.attributes: dict[str, Any] = {name: _plain(value) for name, value in self._file.attrs.items()}
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
        missing += [name for name in ("image", *TEXTS, *NUMBERS) if name not in self._file]
        if missing:
            return f"lacks {', '.join(missing)}"
        image = self._file["image"]
        if image.ndim != 4:
            return f"image is {image.dtype} {image.shape}, not (N, H, W, 3)"
        for name in (*TEXTS, *NUMBERS):
            data = self._file[name]
            kind = "UTF-8 strings" if name in TEXTS else NUMBERS[name]
            if (h5py.check_string_dtype(data.dtype) is None) if name in TEXTS else data.dtype != kind:
                return f"column {name} is {data.dtype}, not {kind}"
            if data.shape != image.shape[:1]:
                return f"column {name} has shape {data.shape}, image has {image.shape[0]} rows"
        return "" if isinstance(self.attributes["classes"], list) else "the attribute classes is no list"

    def _unreadable(self, error: Exception) -> OutputError:
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
        return int(self._file["image"].shape[0])

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()

    @property
    def image_type(self) -> tuple[np.dtype, tuple[int, ...]]:
        """Type and shape of the image dataset, as stored."""
        return self._file["image"].dtype, self._file["image"].shape

    def image(self, place: int) -> np.ndarray:
        """Return the image of the row at `place`: uint8 (H, W, 3), RGB.

        Raises:
            OutputError: the stored image is damaged.
        """
        try:
            return self._file["image"][place]
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

    def column(self, name: str) -> np.ndarray:
        """Return a whole column, (N,): texts as str objects, numbers in the type of schema.NUMBERS.

        Raises:
            OutputError: there is no such column, or it is damaged.
        """
        if name not in TEXTS and name not in NUMBERS:
            raise OutputError(f"got column {name!r}; allowed: {', '.join((*TEXTS, *NUMBERS))}")
        try:
            data = self._file[name]
            return data.asstr()[()] if name in TEXTS else data[()]
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


class Output(Sequence[dict[str, Any]]):
    """All rows of an output folder, in plan order whatever ranks and shards made them; images are read when
    asked for.

    Cheap to pickle and safe to use in data loader workers: files are opened in the process that reads them.

    Attributes:
        path: the output folder.
        classes: ordered class names; `labels` counts in them.
    """

    def __init__(self, path: str | Path) -> None:
        """Index the shards of `path`: labels, status and where each row lies.

        Raises:
            OutputError: no shards, or a shard is damaged.
        """
        self.path = Path(path)
        self.files = sorted((self.path / "shards").glob("[0-9]*-r*.h5"))
        if not self.files:
            raise OutputError(
                f"{self.path}: has no shards/*.h5; make them with `fastgen run --bank ... --out {self.path}`"
            )
        self._handles: OrderedDict[int, ShardFile] = OrderedDict()
        self._process = os.getpid()
        self.classes: tuple[str, ...] = ()
        index, files, places, labels, status = [], [], [], [], []
        for number, path in enumerate(self.files):
            with ShardFile(path, check=False) as file:
                classes = tuple(file.attributes["classes"])
                if number and classes != self.classes:
                    raise OutputError(
                        f"{path}: its classes are not those of {self.files[0].name}; fastgen verify says more"
                    )
                self.classes = classes
                rows = file.column("plan_index")
                index.append(rows)
                files.append(np.full(len(rows), number, np.int32))
                places.append(np.arange(len(rows), dtype=np.int32))
                labels.append(file.column("label"))
                status.append(file.column("status"))
                if not _within(labels[-1], -1, len(classes)) or not _within(status[-1], 0, len(STATUS_NAMES)):
                    raise OutputError(f"{path}: labels or status are damaged; fastgen verify says more")
        plan_index = np.concatenate(index)
        order = np.argsort(plan_index, kind="stable")
        self.plan_index: np.ndarray = plan_index[order]
        """Line of plan.jsonl of every row, int64 (N,)."""
        self._of_file = np.concatenate(files)[order]
        self._place = np.concatenate(places)[order]
        self.labels: np.ndarray = np.concatenate(labels)[order]
        """Class of every row, int64 (N,)."""
        self.status: np.ndarray = np.concatenate(status)[order]
        """Status of every row, int8 (N,); 0 is good."""

    @property
    def good(self) -> np.ndarray:
        """Numbers of the rows whose image may be used, int64, ascending."""
        return np.flatnonzero(self.status == GOOD)

    @property
    def run(self) -> dict[str, Any] | None:
        """Content of run.json; None while the run is not finished. Raises OutputError if it is damaged."""
        path = self.path / "run.json"
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        except (OSError, ValueError) as error:
            raise OutputError(f"{path}: is damaged ({error}); fastgen verify says more") from error

    def __len__(self) -> int:
        """Return the number of rows, failed ones included."""
        return len(self.plan_index)

    def __getitem__(self, number: Any) -> Any:
        """Return the resolved row `number` as a dict, without its image; a slice gives a list."""
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        file, place = self._find(number)
        return file.row(place)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the resolved rows."""
        for text in self.column("meta"):
            yield json.loads(text)

    def image(self, number: int) -> np.ndarray:
        """Return the image of row `number`: uint8 (H, W, 3), RGB; black if the row failed.

        Raises:
            OutputError: the stored image is damaged.
            IndexError: no such row.
        """
        file, place = self._find(number)
        return file.image(place)

    def source_image(self, number: int) -> np.ndarray:
        """Return the image of row `number` at the size of its reference, uint8 (h, w, 3): what DALDA's code stores.

        It is resized bilinearly; the shard holds it at the engine's size, without this second resampling.

        Raises:
            OutputError: the stored image is damaged, or the row's reference has no size.
            IndexError: no such row.
        """
        from PIL import Image

        size = (self[number].get("ref") or {}).get("size")
        if size is None:
            raise OutputError(f"{self.path}: row {number} has no ref.size; fastgen plan gives it to rows that it pairs")
        picture = Image.fromarray(self.image(number))
        return np.asarray(picture.resize((size[0], size[1]), Image.Resampling.BILINEAR))

    def images(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the images of several rows, uint8 (len(numbers), H, W, 3)."""
        return np.stack([self.image(int(number)) for number in numbers])

    def column(self, name: str) -> np.ndarray:
        """Return one column over all rows, (N,): texts as str objects, numbers in the type of schema.NUMBERS.

        Raises:
            OutputError: there is no such column.
        """
        parts = [self._open(number).column(name) for number in range(len(self.files))]
        starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        return np.concatenate(parts)[starts[self._of_file] + self._place]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open files behind when pickled."""
        return {**self.__dict__, "_handles": OrderedDict()}

    def _find(self, number: int) -> tuple[ShardFile, int]:
        if not -len(self) <= number < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        return self._open(int(self._of_file[number])), int(self._place[number])

    def _open(self, number: int) -> ShardFile:
        """Return the file, opening it if need be; the least recently used one is closed in exchange."""
        if self._process != os.getpid():  # a forked worker must not share its parent's file positions
            self._handles, self._process = OrderedDict(), os.getpid()
        file = self._handles.pop(number, None) or ShardFile(self.files[number], check=False)
        self._handles[number] = file
        if len(self._handles) > OPEN_FILES:
            self._handles.popitem(last=False)[1].close()
        return file


def open_output(out: str | Path) -> Output:
    """Open an output folder for reading.

    Args:
        out: the folder that `fastgen run` wrote (finished or not).

    Raises:
        OutputError: no shards, or a shard is damaged.
    """
    return Output(out)


def _within(numbers: np.ndarray, least: int, end: int) -> bool:
    """Whether all numbers are at least `least` and below `end`."""
    return bool(((numbers >= least) & (numbers < end)).all())


def _plain(value: Any) -> Any:
    """HDF5 attribute as str, int, or list of str."""
    if isinstance(value, np.ndarray):
        return [item.decode() if isinstance(item, bytes) else str(item) for item in value]
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value
