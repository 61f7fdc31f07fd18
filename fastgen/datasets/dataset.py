"""Lays a data set out as class folders that every command reads: the function behind `fastgen dataset NAME ROOT`.

    OUT/train/<class>/<picture>, OUT/test/..., OUT/val/...   hard links to the pictures, or copies
    OUT/classes.txt     a class name per line, in label order
    OUT/dataset.json    arguments, source, classes and counts; written last
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastgen import __version__
from fastgen.datasets.cub import cub
from fastgen.datasets.folder import caltech101, image_folder
from fastgen.datasets.source import Source
from fastgen.datasets.split import SPLITS, Split, make_split
from fastgen.errors import FastgenError, OutputError
from fastgen.fields import Problems, choice, integer, number
from fastgen.files import atomic_directory, atomic_write_text

FORMAT = 1
"""Version of the folder in dataset.json; it grows when a split or the files change."""


def _by_torchvision(name: str) -> Callable[[Path], Source]:
    """A reader that needs torch, which takes seconds to import, only when it is called."""

    def read(root: Path) -> Source:
        from fastgen.datasets import torchvision_layouts

        return getattr(torchvision_layouts, name)(root)

    return read


READERS: dict[str, Callable[[Path], Source]] = {
    "pets": _by_torchvision("pets"),
    "caltech101": caltech101,
    "flowers102": _by_torchvision("flowers102"),
    "aircraft": _by_torchvision("aircraft"),
    "cars": _by_torchvision("cars"),
    "cub": cub,
    "folder": image_folder,
}
"""Data set -> its reader."""


@dataclass(slots=True)
class Written:
    """How the pictures came into the folder."""

    linked: int = 0
    copied: int = 0


def dataset(
    name: str,
    root: str | Path,
    *,
    out: str | Path,
    split: str = "halves",
    seed: int = 0,
    shots: int | None = None,
    val_per_class: int = 0,
    imbalance: float | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Lays a data set out as `out`/train, `out`/test and perhaps `out`/val, whole or not at all.

    Classes are called as in the shipped banks, so that `prompts/pets.jsonl` and the others run on these folders.

    Args:
        name: `pets`, `caltech101`, `flowers102`, `aircraft`, `cars`, `cub`, or `folder` for any image folder.
        root: where the data set lies as torchvision puts it (`root`/oxford-iiit-pet and so on; CUB:
            `root`/CUB_200_2011); of `folder` the image folder.
        out: folder to make. If it holds the same already, nothing is done.
        split: `halves` (DALDA's code) or `official`; see `make_split`.
        seed: of the split, 0 or more.
        shots: training pictures per class; None takes all.
        val_per_class: validation pictures per class (BOB: 16 of Aircraft and Pets, 10 of Cars and CUB, 5 of a long
            tail). They come from training images that are not trained on, with `imbalance` from the test images.
        imbalance: largest over smallest class of a long-tailed training set (BOB: 100, 50, 10); not with `shots`.
        say: gets a line when there is nothing to do, and when all is done.

    Returns:
        `out` as a path.

    Raises:
        FastgenError: arguments are wrong, the data set is not there or incomplete, or `out` was made with other
            arguments.
        OutputError: something else is in `out`, or it cannot be written.
    """
    arguments = _check(
        name=name, root=str(root), split=split, seed=seed, shots=shots, val_per_class=val_per_class,
        imbalance=imbalance,
    )  # fmt: skip
    folder = Path(out)
    if _is_done(folder, arguments):
        say(f"{folder} is up to date: it was made with the same arguments; nothing to do")
        return folder
    source = READERS[name](Path(root))
    source.check()
    chosen = make_split(
        source, split, seed=seed, shots=shots, val_per_class=val_per_class, imbalance=imbalance
    )  # fmt: skip
    with atomic_directory(folder, replace=folder.is_dir()) as tmp:
        written = _write(tmp, chosen)
        atomic_write_text(tmp / "classes.txt", "".join(f"{name}\n" for name in source.classes))
        about = _about(source, chosen, arguments, written)
        atomic_write_text(tmp / "dataset.json", json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    _tell(folder, source, chosen, shots, say)
    return folder


def _check(**given: Any) -> dict[str, Any]:
    """The arguments as dataset.json records them."""
    problems = Problems()
    choice(*READERS)(problems, "name", given["name"])
    choice(*SPLITS)(problems, "split", given["split"])
    integer(0, 2**63 - 1)(problems, "seed", given["seed"])
    integer(0, 10**6)(problems, "val_per_class", given["val_per_class"])
    if given["shots"] is not None:
        integer(1, 10**6)(problems, "shots", given["shots"])
    if given["imbalance"] is not None:
        number(1, 10**6)(problems, "imbalance", given["imbalance"])
        if given["shots"] is not None:
            problems.add("shots", given["shots"], "nothing with imbalance: a long tail says how many a class has")
    problems.raise_if_any()
    if given["name"] == "caltech101" and given["split"] == "official":
        raise FastgenError("split is official, but Caltech-101 has no official split; give --split halves")
    return given


def _write(folder: Path, chosen: Split) -> Written:
    """Fills an empty folder with pictures."""
    written = Written()
    for part, files in chosen.parts.items():
        for class_, paths in files.items():
            if paths:
                (folder / part / class_).mkdir(parents=True)
            for path in paths:
                _bring(path.resolve(), folder / part / class_ / path.name, written)
    return written


def _bring(source: Path, place: Path, written: Written) -> None:
    """A hard link, or a copy where the file system (or another one) does not allow it.

    Never a symbolic link: references may not lead out of their folder.
    """
    try:
        os.link(source, place)
        written.linked += 1
    except OSError:
        shutil.copyfile(source, place)
        written.copied += 1


def _about(source: Source, chosen: Split, arguments: dict[str, Any], written: Written) -> dict[str, Any]:
    counts = {part: {name: len(paths) for name, paths in files.items()} for part, files in chosen.parts.items()}
    return {
        "fastgen_dataset": FORMAT,
        "fastgen_version": __version__,
        "arguments": arguments,
        "source": {"folder": str(source.folder.resolve()), "images": len(source)},
        "classes": list(source.classes),
        "renamed": dict(source.renamed),
        "counts": counts,
        "left_out": [path.relative_to(source.folder).as_posix() for path in chosen.twins],
        "linked": written.linked,
        "copied": written.copied,
    }


def _tell(folder: Path, source: Source, chosen: Split, shots: int | None, say: Callable[[str], None]) -> None:
    sizes = ", ".join(f"{sum(map(len, files.values()))} {part}" for part, files in chosen.parts.items())
    say(f"{folder}: {len(source.classes)} classes, images: {sizes}")
    few = sum(len(files) < shots for files in chosen.train.values()) if shots is not None else 0
    if few:
        say(f"note: {few} classes have fewer than {shots} training images")
    if chosen.twins:
        say(f"note: {len(chosen.twins)} images are left out, being the same as others (left_out in dataset.json)")


def _is_done(folder: Path, arguments: dict[str, Any]) -> bool:
    """Tells whether the folder holds what is asked for; raises if it holds anything else."""
    path = folder / "dataset.json"
    if not path.is_file():
        if folder.is_symlink() or folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise OutputError(f"{folder}: exists, and is no data set of this command; choose another name or remove it")
        return False
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        there = {"format": about["fastgen_dataset"], **about["arguments"]}
        counts = {part: dict(of_class) for part, of_class in about["counts"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise FastgenError(f"{path}: cannot be read ({error!r}); remove {folder} and try again") from None
    asked = {"format": FORMAT, **arguments}
    differing = [
        f"{key}: there {json.dumps(there.get(key))}, asked for {json.dumps(asked.get(key))}"
        for key in dict.fromkeys((*asked, *there))
        if there.get(key) != asked.get(key)
    ]
    if differing:
        raise FastgenError(
            f"{folder}: was made with other arguments ({'; '.join(differing)}); give the same arguments, choose "
            "another folder, or remove this one"
        )
    for part, of_class in counts.items():
        for class_, count in of_class.items():
            place = folder / part / class_
            found = sum(1 for _ in place.iterdir()) if place.is_dir() else 0
            if found < count:
                raise FastgenError(f"{place}: holds {found} images of {count}; remove {folder} and try again")
    return True
