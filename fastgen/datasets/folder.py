"""Data sets that are folders of pictures already: any one, and Caltech-101."""

from pathlib import Path

from fastgen.datasets.source import Files, Source, require
from fastgen.errors import FastgenError
from fastgen.train.data import SUFFIXES, plain

BACKGROUND = "BACKGROUND_Google"
"""A folder of Caltech-101 that is no class."""


def image_folder(root: Path) -> Source:
    """Any image folder: class folders, or such folders in `train`, `test` and, perhaps, `val`."""
    if not root.is_dir():
        raise FastgenError(f"{root}: no such folder; give one that holds one folder of pictures per class")
    if not ((root / "train").is_dir() and (root / "test").is_dir()):
        train = _class_folders(root)
        return Source(folder=root, classes=tuple(train), train=train, test=None, pooled=True)
    train = _class_folders(root / "train")
    test = _named_alike(_class_folders(root / "test"), train, root / "test")
    val = _named_alike(_class_folders(root / "val"), train, root / "val") if (root / "val").is_dir() else None
    return Source(folder=root, classes=tuple(train), train=train, test=test, val=val)


def caltech101(root: Path) -> Source:
    """Caltech-101 without its background class, which has no official split.

    Classes are in the order of their folders, as in torchvision, and named as in DALDA: small letters, blanks. DALDA's
    code draws in the order of these names, from files in whatever order the file system lists them; here they are
    sorted, so that a split is the same on every machine.
    """
    require(root / "caltech101", ["101_ObjectCategories/"], what="Caltech-101")
    where = root / "caltech101" / "101_ObjectCategories"
    found = {name: files for name, files in _class_folders(where).items() if name != BACKGROUND}
    train = {name.lower().replace("_", " "): files for name, files in found.items()}
    return Source(
        folder=where, classes=tuple(train), train=train, test=None, pooled=True, draw_order=tuple(sorted(train))
    )


def _class_folders(where: Path) -> Files:
    """The pictures of each visible folder that has some, all sorted by name."""
    try:
        children = sorted(path for path in where.iterdir() if path.is_dir() and not path.name.startswith("."))
        found = {child.name: sorted(path for path in child.iterdir() if _is_picture(path)) for child in children}
    except OSError as error:
        raise FastgenError(f"{where}: cannot be read ({error.strerror or error})") from error
    found = {name: files for name, files in found.items() if files}
    if not found:
        raise FastgenError(
            f"{where}: no class folder with pictures; expected {where}/<class>/<picture>, a picture ending in "
            f"{', '.join(SUFFIXES)}"
        )
    return found


def _named_alike(found: Files, train: Files, where: Path) -> Files:
    """The pictures under the names of the training classes."""
    names = {plain(name): name for name in train}
    unknown = [name for name in found if plain(name) not in names]
    if unknown:
        raise FastgenError(f"{where}: class {unknown[0]!r} has no folder in {where.parent / 'train'}")
    renamed = {names[plain(name)]: files for name, files in found.items()}
    return {name: renamed.get(name, []) for name in train}


def _is_picture(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".") and path.is_file()
