"""The pictures to learn from: class folders, and a line of attributes for each picture where captions need them.

The lines stand in `captions.jsonl` or `metadata.jsonl` of the image folder, as `fastgen petworld` writes them:
{"file_name": "<class>/<file>", "background": ..., "pose": ..., "class" or "breed": ...}; see docs/formats.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastgen.errors import SHOWN, FastgenError
from fastgen.files import read_jsonl, sha256_json
from fastgen.train.data import FolderImages, find_images, plain
from fastgen.train.sampling import split_images, streams

CAPTION_FILES = ("captions.jsonl", "metadata.jsonl")
NAME_KEYS = ("file_name", "path", "file")
CLASS_KEYS = ("class", "breed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One picture.

    Attributes:
        path: the file.
        name: relative to the image folder, `<class>/<file>`.
        class_: class name as captions write it.
        attributes: what captions may say of it, such as background and pose; texts only.
    """

    path: Path
    name: str
    class_: str
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """All pictures of a fine-tuning, class by class.

    Attributes:
        rows: sorted by class folder, then by name (few-shot: in the order in which they were drawn).
        classes: names as captions write them, in label order.
        sha256: of the pictures' files and of everything that captions may say.
    """

    rows: tuple[Example, ...]
    classes: tuple[str, ...]
    sha256: str

    def of_class(self, name: str) -> "Examples":
        """Only the pictures of one class."""
        rows = tuple(row for row in self.rows if row.class_ == name)
        return Examples(rows=rows, classes=(name,), sha256=sha256_json([self.sha256, name]))


def read_examples(
    real: Path, *, captions: Path | None = None, needed: Sequence[str] = (), shots: int | None = None, seed: int = 0
) -> Examples:
    """Find the pictures, and the attributes that captions need.

    Args:
        real: class folders, or a folder with such folders `train` and `test` in it.
        captions: JSONL file; None looks for `captions.jsonl` and `metadata.jsonl` in the folder.
        needed: attributes that every picture must have.
        shots: pictures per class; None takes all. The same ones as `fastgen train --shots` with this seed and a
            test folder.
        seed: of the choice.

    Raises:
        FastgenError: no pictures, no caption file, pictures without a line or attribute (up to 20 are listed), a
            line that says another class than the folder, or too few pictures.
    """
    if (real / "train").is_dir() and (real / "test").is_dir():
        real = real / "train"
    images = find_images(real)
    _check_readable(images)
    lines = _read_captions(real, captions, required=bool(needed))
    chosen = _choose(images, shots, seed)
    names = _class_names(images, lines)
    rows = tuple(_example(images, int(i), lines, names) for i in chosen)
    _check_needed(rows, needed, lines, real)
    content = [[images.hashes[i], row.class_, dict(row.attributes)] for i, row in zip(chosen, rows, strict=True)]
    return Examples(rows=rows, classes=names, sha256=sha256_json(content))


def _choose(images: FolderImages, shots: int | None, seed: int) -> np.ndarray:
    if shots is not None and shots < 1:
        raise FastgenError(f"shots is {shots}; it must be at least 1")
    preferred = np.zeros(len(images), bool)
    if shots is None:
        return np.arange(len(images))
    rng = streams(seed)[0]
    split = split_images(images.labels, preferred, rng, classes=images.classes, shots=shots, hold_out=False)
    return split.train


def _check_readable(images: FolderImages) -> None:
    """Open every file's header, so that a damaged one ends the command before anything is trained."""
    wrong = []
    for name in images.paths:
        try:
            with Image.open(images.root / name) as image:
                image.verify()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            wrong.append(f"{images.root / name}: not a readable image ({error}); repair or remove it")
    _refuse(wrong)


def _read_captions(real: Path, captions: Path | None, *, required: bool) -> dict[str, dict[str, Any]]:
    """File name relative to the image folder -> its line; lines of other files (a test set's) are passed over."""
    path = captions or next((real / name for name in CAPTION_FILES if (real / name).is_file()), None)
    if path is None:
        if required:
            raise FastgenError(
                f"{real}: has no captions.jsonl or metadata.jsonl, and the captions need background and pose of every "
                "picture; write one (fastgen caption), give --captions FILE, or train without them: --no-preserve"
            )
        return {}
    found: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(read_jsonl(path), start=1):
        name = next((line[key] for key in NAME_KEYS if key in line), None) if isinstance(line, dict) else None
        if not isinstance(name, str):
            raise FastgenError(f"{path}:{number}: needed is a JSON object with \"file_name\": \"<class>/<file>\"")
        key = _relative(name, path.parent, real)
        if key in found:
            raise FastgenError(f"{path}:{number}: {name} occurs twice; keep one line per picture")
        found[key] = line
    return found


def _relative(name: str, base: Path, real: Path) -> str:
    """A line's file name relative to the image folder: it may start at the caption file's folder instead."""
    for start in (real, base):
        place = (start / name).absolute()
        if place.is_relative_to(real.absolute()) and place.is_file():
            return place.relative_to(real.absolute()).as_posix()
    return name


def _class_names(images: FolderImages, lines: Mapping[str, dict[str, Any]]) -> tuple[str, ...]:
    """Names as captions write them: the lines' own, else the folder's with blanks for underscores."""
    names = [name.replace("_", " ") for name in images.classes]
    wrong = []
    for path, label in zip(images.paths, images.labels.tolist(), strict=True):
        said = _class_of(lines.get(path, {}))
        if said is None:
            continue
        if plain(said) != plain(images.classes[label]):
            wrong.append(
                f"{path}: its line says class {said!r}, its folder {images.classes[label]!r}; correct one of the two"
            )
        names[label] = said
    _refuse(wrong)
    return tuple(names)


def _class_of(line: Mapping[str, Any]) -> str | None:
    return next((line[key] for key in CLASS_KEYS if isinstance(line.get(key), str)), None)


def _example(images: FolderImages, i: int, lines: Mapping[str, dict[str, Any]], names: Sequence[str]) -> Example:
    line = lines.get(images.paths[i], {})
    texts = {key: " ".join(value.split()) for key, value in line.items() if isinstance(value, str)}
    name = names[images.labels[i]]
    for key in (*NAME_KEYS, *CLASS_KEYS):
        texts.pop(key, None)
    return Example(path=images.root / images.paths[i], name=images.paths[i], class_=name, attributes=texts)


def _check_needed(rows: Sequence[Example], needed: Sequence[str], lines: Mapping[str, Any], real: Path) -> None:
    wrong = []
    for row in rows:
        missing = [name for name in needed if not row.attributes.get(name)]
        if missing:
            what = f"no {' and no '.join(missing)}" if row.name in lines else "no line in the caption file"
            wrong.append(f"{real / row.name}: {what}; complete it, or train without: --no-preserve")
    _refuse(wrong)


def _refuse(wrong: Sequence[str]) -> None:
    if wrong:
        more = [f"... and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
        raise FastgenError("\n".join([*wrong[:SHOWN], *more]))
