"""Folders of images: which folder is which class, which files are images, and that nothing leads outside."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from fastgen.errors import ReferenceImageError
from fastgen.fields import Problems, inside_path
from fastgen.plan.pictures import SUFFIXES


def match_names(classes: Sequence[str], names: Sequence[str], what: str) -> dict[str, str]:
    """Finds the name of each class among `names`, without regard to case, "_", "-" and repeated spaces.

    Args:
        classes: class names of a bank.
        names: names of folders or breeds.
        what: how messages call the names.

    Returns:
        class -> name, in the order of the classes, without the classes that have none.

    Raises:
        ReferenceImageError: if none matches, or some can be matched in more than one way; all of them are
            listed.
    """
    exact, by_key = set(classes), dict[str, list[str]]()
    for name in names:
        by_key.setdefault(_key(name), []).append(name)
    found, taken, doubts = dict[str, str](), dict[str, str](), list[str]()
    for class_ in classes:
        fits = [name for name in by_key.get(_key(class_), ()) if name == class_ or name not in exact]
        if len(fits) > 1:
            doubts.append(f"class {class_!r} fits {' and '.join(map(repr, sorted(fits)))}")
        elif fits and fits[0] in taken:
            doubts.append(f"{fits[0]!r} fits the classes {taken[fits[0]]!r} and {class_!r}")
        elif fits:
            found[class_] = fits[0]
            taken[fits[0]] = class_
    if doubts:
        raise ReferenceImageError(f"{what}: ambiguous: {'; '.join(doubts)}; rename or merge them")
    if not found:
        some = ", ".join(sorted(names)[:10]) or "nothing"
        wanted = ", ".join(classes[:10])
        raise ReferenceImageError(f"{what}: none has the name of a class; found: {some}; allowed: {wanted}")
    return found


def list_folders(folder: Path) -> list[str]:
    """Names of the visible folders in a folder, sorted.

    Raises:
        ReferenceImageError: if the folder cannot be read.
    """
    return [entry.name for entry in _entries(folder) if entry.is_dir()]


def list_images(folder: Path, base: Path) -> list[Path]:
    """The visible files in a folder that end like images, sorted by name (file systems have any order).

    Args:
        folder: where to look; not below it.
        base: resolved folder that neither `folder` nor a symbolic link in it may lead out of.

    Raises:
        ReferenceImageError: if the folder cannot be read, a link is broken or leads out of `base`, or a row
            could not hold a file's name.
    """
    check_inside(folder, base)
    found = []
    for entry in _entries(folder):
        if not entry.name.lower().endswith(SUFFIXES):
            continue
        if entry.is_symlink():
            inside([base], entry.path)
        if entry.is_file():
            found.append(Path(entry.path))
    return found


def inside(roots: Sequence[Path], name: str, *, want: str = "file") -> Path:
    """Returns the path of `name` below the first folder that has it.

    Args:
        roots: resolved folders.
        name: relative to one of them.
        want: "file" or "folder".

    Raises:
        ReferenceImageError: if none has it, or it leads out of the folder that has it, by its spelling or by
            a symbolic link.
    """
    for root in roots:
        path = root / name
        try:
            is_there = path.is_file() if want == "file" else path.is_dir()
        except OSError:  # a name too long for the file system
            continue
        if is_there:
            check_inside(path, root)
            return path
    where = " or ".join(map(str, roots))
    raise ReferenceImageError(f"reference {name!r}: no such {want} in {where}; check the path, or give --refs")


def check_inside(path: Path, base: Path) -> None:
    """Raises ReferenceImageError if `path` leads out of the resolved folder `base`."""
    target = path.resolve()
    if not target.is_relative_to(base):
        raise ReferenceImageError(
            f"reference {path}: leads out of {base} to {target}; allowed: paths and links that stay inside; "
            "copy it in, or give the folder that holds everything as --refs"
        )


def check_spelling(path: str) -> None:
    """Raises ReferenceImageError if a row could not hold the relative path."""
    problems = Problems()
    inside_path(problems, "ref.path", path)
    if problems.found:
        raise ReferenceImageError(f"reference {path!r}: allowed: {problems.found[0].allowed}; rename the file")


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as listing:
            return sorted((entry for entry in listing if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ReferenceImageError(f"references: folder {folder} cannot be read ({reason})") from error
