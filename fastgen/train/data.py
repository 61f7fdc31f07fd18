"""Images to train and test on: class folders, and good rows of an output folder with their real parents."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageOps

from fastgen.errors import DataError, FastgenError, ReferenceImageError
from fastgen.files import sha256_file, sha256_json
from fastgen.shards.read import Output, open_output
from fastgen.shards.schema import status_counts
from fastgen.shards.selection import select

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Ends of file names, in lower case, that are taken for images in a class folder; as for references."""


class ImageSource(Protocol):
    """Images in a fixed order, with a hash of their content."""

    @property
    def sha256(self) -> str:
        """Changes when an image, or their order, changes."""

    def __len__(self) -> int:
        """Return the number of images."""

    def image(self, place: int) -> Image.Image:
        """Return one image as RGB."""

    def images(self) -> Iterator[Image.Image]:
        """Yield every image as RGB, in order."""


@dataclass(frozen=True, slots=True)
class FolderImages:
    """Images of class folders, sorted by class and then by name.

    Attributes:
        root: the folder that holds the class folders.
        paths: files, relative to root, posix style.
        classes: names, in label order.
        labels: class of every image, int64 (N,).
        hashes: sha256 of every file.
    """

    root: Path
    paths: tuple[str, ...]
    classes: tuple[str, ...]
    labels: np.ndarray
    hashes: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Hash over all files in order."""
        return sha256_json(self.hashes)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def image(self, place: int) -> Image.Image:
        """Return one image as RGB, turned as its EXIF tag says, transparent parts on white.

        Raises:
            ReferenceImageError: if the file is not a readable image.
        """
        path = self.root / self.paths[place]
        try:
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image)
            return _on_white(upright)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ReferenceImageError(f"{path}: not a readable image ({error}); repair or remove it") from error

    def images(self) -> Iterator[Image.Image]:
        """Yield every image as `image` does."""
        return map(self.image, range(len(self)))


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


@dataclass(frozen=True, slots=True)
class OutputImages:
    """Some rows of an output folder, in plan order.

    Attributes:
        output: the opened folder.
        rows: row numbers, int64 (N,), ascending.
        classes: class name of every row.
        ref_ids: id of the reference of every row, "" for none.
    """

    output: Output
    rows: np.ndarray
    classes: tuple[str, ...]
    ref_ids: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Hash over the hashes of the images."""
        return sha256_json([own.decode() for own in self.output.column("image_sha256")[self.rows]])

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def image(self, place: int) -> Image.Image:
        """Return the image of one of the rows as RGB.

        Raises:
            OutputError: if a shard is damaged.
        """
        return Image.fromarray(self.output.image(int(self.rows[place])))

    def images(self) -> Iterator[Image.Image]:
        """Yield every row's image as `image` does."""
        return map(self.image, range(len(self)))


def plain(name: str) -> str:
    """Class name as it is compared: case, `_` and `-` do not matter."""
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split())


def find_images(folder: Path, classes: Sequence[str] | None = None) -> FolderImages:
    """Lists the images of a folder that has one folder per class.

    Args:
        folder: holds `<class name>/<image>`; folders inside a class folder are not looked into.
        classes: names that fix the labels (a training set's, for a test set); None takes the folders' names,
            sorted.

    Returns:
        the images; nothing is decoded yet, but every file is hashed.

    Raises:
        FastgenError: if the folder is missing, has no class folders with images, or has a class that
            `classes` lacks.
    """
    if not folder.is_dir():
        raise FastgenError(
            f"{folder}: no such folder; give a folder that holds one folder of images per class"
        )
    found: dict[str, list[Path]] = {}
    for child in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        files = sorted(p for p in child.iterdir() if _is_image(p))
        if files:
            found[child.name] = files
    if not found:
        raise FastgenError(
            f"{folder}: no class folder with images in it; expected {folder}/<class name>/<image>, an image "
            f"ending in {', '.join(SUFFIXES)}"
        )
    names = tuple(classes) if classes is not None else tuple(found)
    label_of = {plain(name): label for label, name in enumerate(names)}
    unknown = [name for name in found if plain(name) not in label_of]
    if unknown:
        raise FastgenError(
            f"{folder}: class {unknown[0]!r} has no training images; its classes must be among "
            f"{', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
        )
    ordered = sorted(found.items(), key=lambda item: label_of[plain(item[0])])
    labelled = [(label_of[plain(name)], path) for name, paths in ordered for path in paths]
    return FolderImages(
        root=folder,
        paths=tuple(path.relative_to(folder).as_posix() for _, path in labelled),
        classes=names,
        labels=np.array([label for label, _ in labelled], np.int64),
        hashes=tuple(sha256_file(path) for _, path in labelled),
    )


def _is_image(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".") and path.is_file()


def find_real(real: Path, test: Path | None) -> tuple[FolderImages, FolderImages | None]:
    """Finds training and test images.

    A folder with the two folders `train` and `test` stands for both, unless another test folder is given.

    Args:
        real: class folders, or a folder with `train` and `test`.
        test: class folders, or None.

    Returns:
        training images, and test images or None where there are none.

    Raises:
        FastgenError: as `find_images`, or if the same file is in both.
    """
    if (real / "train").is_dir() and (real / "test").is_dir():
        real, test = real / "train", test or real / "test"
    training = find_images(real)
    if test is None:
        return training, None
    testing = find_images(test, training.classes)
    refuse_shared(testing, training, "a training image")
    return training, testing


def refuse_shared(images: FolderImages, others: FolderImages, what: str) -> None:
    """Raises FastgenError if a file is in both sets; the message calls the other one `what`."""
    known = dict(zip(others.hashes, others.paths, strict=True))
    for path, digest in zip(images.paths, images.hashes, strict=True):
        if digest in known:
            raise FastgenError(
                f"{images.root / path} is also {what} ({others.root / known[digest]}); accuracy on it would mean "
                "nothing. Remove one of the two."
            )


def read_synthetic(
    out: Path, classes: Sequence[str], *, keep: Path | None = None
) -> tuple[OutputImages, dict[str, Any]]:
    """Finds the good rows of an output folder that have one of the given classes.

    Args:
        out: an output folder of `fastgen run`, finished or not.
        classes: names to look for; compared as `plain` does.
        keep: a selection that says which images to use, see `fastgen.shards.selection`; None uses all.

    Returns:
        the rows, at least one, and counts: `statuses` (rows per status name), `other_class` (good rows of another
        class, left out) and, with a selection, `filtered_out`.

    Raises:
        OutputError: if there are no shards, or one is damaged.
        DataError: if no row is left.
    """
    output = open_output(out)
    statuses = {name: count for name, count in status_counts(output.status).items() if count}
    wanted = {plain(name) for name in classes}
    names = output.column("class")
    rows = np.array([row for row in output.good if plain(names[row]) in wanted], np.int64)
    if not len(output.good):
        raise DataError(
            f"{out}: none of its {len(output)} rows is good ({statuses}); see fastgen verify {out}"
        )
    if not len(rows):
        raise DataError(
            f"{out}: no good row has one of the classes {', '.join(classes[:5])}, ...; it has "
            f"{', '.join(output.classes[:5])}, .... Name the class folders like the bank's classes."
        )
    counts = {"statuses": statuses, "other_class": len(output.good) - len(rows)}
    if keep is not None:
        found, rows = len(rows), select(output, rows, keep)
        counts["filtered_out"] = found - len(rows)
        if not len(rows):
            raise DataError(f"{keep}: keeps none of the {found} images of {out}; lower its percentile")
    images = OutputImages(output, rows, tuple(names[rows]), tuple(output.column("ref_id")[rows]))
    return images, counts


def link(ref_ids: Sequence[str], paths: Sequence[str]) -> np.ndarray:
    """Finds the real image that each synthetic image was made of.

    A reference id names a file as `<class>/<file>`, with or without its suffix and with or without a source
    before it (`petworld/<class>/<file>`); a bare file name does where only one class has it.

    Args:
        ref_ids: reference ids, "" for none.
        paths: real images' paths relative to their folder, `<class>/<file>`.

    Returns:
        index into `paths` for every id, int64, -1 where there is none.
    """
    keys = [_key(path) for path in paths]
    index: dict[str, int] = {}
    for names in (keys, [key.rsplit("/", 1)[-1] for key in keys]):
        count = Counter(names)
        index |= {name: i for i, name in enumerate(names) if count[name] == 1}
    return np.array([_find(_key(ref), index) if ref else -1 for ref in ref_ids], np.int64)


def _find(key: str, index: dict[str, int]) -> int:
    parts = key.split("/")
    tails = ["/".join(parts[start:]) for start in range(max(1, len(parts) - 1))]
    return next((index[tail] for tail in tails if tail in index), -1)


def _key(path: str) -> str:
    """`Basset_Hound/01.png` -> `basset hound/01`."""
    *folders, name = path.split("/")
    stem = name.rsplit(".", 1)[0] if name.lower().endswith(SUFFIXES) else name
    return "/".join([*(plain(folder) for folder in folders if folder), stem])
