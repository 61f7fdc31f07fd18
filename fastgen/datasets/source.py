"""A data set as it lies on the disk, and what its reader needs to find there."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fastgen.errors import SHOWN, FastgenError
from fastgen.train.data import plain

Files = dict[str, list[Path]]
"""Class -> its pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The pictures of a data set.

    Attributes:
        folder: that was read.
        classes: names in label order; each is fit to be the name of a folder.
        train, test: pictures of its own split, in its own order; without one, `train` has all and `test` is None.
        val: pictures of its own validation set, which are in neither of them; None without one.
        pooled: whether halves are halves of all pictures, and not of `train` and of `test`.
        draw_order: order of the classes in which a split draws; label order if empty.
        renamed: class -> its name in the data set, where that cannot name a folder.
    """

    folder: Path
    classes: tuple[str, ...]
    train: Files
    test: Files | None
    val: Files | None = None
    pooled: bool = False
    draw_order: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def order(self) -> tuple[str, ...]:
        """Classes in the order in which a split draws."""
        return self.draw_order or self.classes

    @property
    def everything(self) -> Files:
        """All pictures of each class, sorted by name."""
        parts = [part for part in (self.train, self.val, self.test) if part is not None]
        return {name: sorted(path for part in parts for path in part.get(name, ())) for name in self.classes}

    def __len__(self) -> int:
        """Return the number of pictures."""
        return sum(map(len, self.everything.values()))

    def check(self) -> None:
        """Refuses what cannot be laid out.

        Raises:
            FastgenError: a picture is missing, a class has none, or two classes have the same name.
        """
        missing = [path for of_class in self.everything.values() for path in of_class if not _is_readable(path)]
        if missing:
            shown = "".join(f"\n  {path}" for path in missing[:SHOWN])
            more = f"\n  ... and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
            raise FastgenError(
                f"{self.folder}: its lists name {len(missing)} pictures that are not there or not readable; unpack "
                f"it again{shown}{more}"
            )
        empty = [name for name in self.classes if not self.train.get(name)]
        if empty:
            raise FastgenError(f"{self.folder}: no training picture of {', '.join(map(repr, empty[:SHOWN]))}")
        of_name: dict[str, str] = {}
        for name in self.classes:
            other = of_name.setdefault(plain(name), name)
            if other != name:
                raise FastgenError(
                    f"{self.folder}: the classes {other!r} and {name!r} differ in case, blanks, '_' or '-' alone, "
                    "which other commands do not tell apart; rename or merge them"
                )


def by_class(classes: Sequence[str], labels: Sequence[int], paths: Sequence[str | Path]) -> Files:
    """Sorts pictures by class and keeps their order; every class gets a list."""
    found: Files = {name: [] for name in classes}
    for label, path in zip(labels, paths, strict=True):
        found[classes[label]].append(Path(path))
    return found


def folder_names(names: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Class names that can name a folder (Ram C/V: Ram C-V), and which of them the data set spells otherwise."""
    classes = tuple(name.replace("/", "-").strip() for name in names)
    return classes, {class_: name for class_, name in zip(classes, names, strict=True) if class_ != name}


def require(folder: Path, names: Sequence[str], *, what: str) -> None:
    """Checks that the files and folders of a layout are there.

    Args:
        folder: of the data set.
        names: relative to it; those that end with "/" are folders.
        what: the data set, as messages call it.

    Raises:
        FastgenError: names everything that is missing.
    """
    missing = [name for name in names if not _is_there(folder, name)]
    if missing:
        raise FastgenError(
            f"{what}: not found: {', '.join(str(folder / name) + '/' * name.endswith('/') for name in missing)}; "
            f"expected in {folder.parent}: {folder.name}/ with {', '.join(names)}"
        )


def _is_readable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK)


def _is_there(folder: Path, name: str) -> bool:
    path = folder / name
    return path.is_dir() if name.endswith("/") else path.is_file()


@contextmanager
def readable(folder: Path, *, what: str) -> Iterator[None]:
    """Turns what damaged lists make a reader raise into one clear error."""
    try:
        yield
    except FastgenError:
        raise
    except Exception as error:  # loadmat and torchvision raise nearly anything on files that are not theirs
        reason = str(error) or type(error).__name__
        raise FastgenError(
            f"{what}: the lists in {folder} cannot be read ({type(error).__name__}: {reason}); unpack it again"
        ) from error
