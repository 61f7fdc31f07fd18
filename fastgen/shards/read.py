"""Read an output folder as a list of rows, with h5py alone (`open_output`)."""

import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastgen.errors import OutputError
from fastgen.shards.schema import GOOD, NUMBERS, STATUS_NAMES, TEXTS
from fastgen.shards.shard_file import ShardFile

OPEN_FILES = 64
"""Shard files that one Output keeps open."""

PIECE = 1024
"""Rows whose texts are read at once where all rows are gone through."""


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
    def image_shape(self) -> tuple[int, ...]:
        """Shape of the images, (H, W, 3)."""
        return self.file(0).image_type[1][1:]

    @property
    def of_file(self) -> np.ndarray:
        """Which of `files` holds each row, int32 (N,)."""
        return self._of_file

    @property
    def places(self) -> np.ndarray:
        """Place of each row in its file, int32 (N,)."""
        return self._place

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
        for start in range(0, len(self), PIECE):
            for text in self.values("meta", np.arange(start, min(start + PIECE, len(self)))):
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
        parts = [self.file(number).column(name) for number in range(len(self.files))]
        starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        return np.concatenate(parts)[starts[self._of_file] + self._place]

    def values(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """Return one column of some rows, (len(numbers),), reading little more than those of each file.

        Raises:
            OutputError: there is no such column, or it is damaged.
        """
        files, places = self._of_file[numbers], self._place[numbers]
        found: np.ndarray = np.empty(len(numbers), object if name in TEXTS else NUMBERS.get(name))
        for file in np.unique(files):
            mine = np.flatnonzero(files == file)
            first, last = int(places[mine].min()), int(places[mine].max()) + 1
            found[mine] = self.file(int(file)).column(name, first, last)[places[mine] - first]
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open files behind when pickled."""
        return {**self.__dict__, "_handles": OrderedDict()}

    def _find(self, number: int) -> tuple[ShardFile, int]:
        if not -len(self) <= number < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        return self.file(int(self._of_file[number])), int(self._place[number])

    def file(self, number: int) -> ShardFile:
        """Return one of `files`, opening it if need be; the least recently used one is closed in exchange."""
        if self._process != os.getpid():  # a forked worker must not share its parent's file positions
            self._handles, self._process = OrderedDict(), os.getpid()
        file = self._handles.pop(number, None)
        if file is None:  # `or` would ask HDF5 for the file's length
            file = ShardFile(self.files[number], known=True)
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
