"""The real images that a bank is made from: their classes, and how rows name them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastgen.bank.class_names import folder_class
from fastgen.errors import BankError
from fastgen.header_parts import PETWORLD
from fastgen.plan.folders import list_folders, list_images
from fastgen.plan.references import Reference, find_references
from fastgen.records import Header


@dataclass(frozen=True, slots=True, kw_only=True)
class Real:
    """Real training images.

    Attributes:
        classes: ordered class names.
        images: of every class, in the order of the classes; each class has at least one.
        refs: for the header's `defaults.refs`: "petworld", or the folder relative to the bank's; None when the folder
            lies outside, and `fastgen run` needs --refs.
        seed: that chose them.
    """

    classes: tuple[str, ...]
    images: tuple[tuple[Reference, ...], ...]
    refs: str | None

    @property
    def counts(self) -> list[int]:
        """Images per class."""
        return [len(images) for images in self.images]


def find_real(
    refs: str | Path, *, out: str | Path, classes: Sequence[str] | None = None, shots: int | None = None, seed: int = 0
) -> Real:
    """Find the images of every class.

    Args:
        refs: folder with one folder of images per class, or "petworld".
        out: path of the bank.
        classes: ordered class names; None takes the folders with images, sorted, as training does.
        shots: images per class, those that `fastgen run --shots` takes with the same seed; None takes all (PetWorld:
            one).
        seed: of the choice.

    Raises:
        BankError: PetWorld without classes, or a folder with `train` and `test` in it.
        ReferenceImageError: there is no such folder, or a class has no images.
    """
    if classes is None:
        classes = _folder_classes(refs)
    header = Header(name="real", classes=tuple(classes))
    found = find_references(str(refs), header, bank_dir=Path(out).parent, shots=shots, seed=seed)
    images = tuple(tuple(found.of_class(class_)) for class_ in header.classes)
    return Real(classes=header.classes, images=images, refs=_beside(refs, out))


def run_advice(real: Real, out: str | Path, refs: str | Path) -> str:
    """The command that makes the images."""
    more = "" if real.refs is not None else f" --refs {refs}"
    return f"fastgen run --bank {out}{more}"


def _folder_classes(refs: str | Path) -> list[str]:
    if str(refs) == PETWORLD:
        raise BankError(["classes: got none, allowed: with petworld, a list of breeds of PetWorld"])
    folder = Path(refs)
    if not folder.is_dir():
        raise BankError([f"refs: got {refs}, allowed: a folder with one folder of images per class, or {PETWORLD}"])
    names = list_folders(folder)
    if {"train", "test"} <= set(names):
        raise BankError([f"refs: got {refs}, which holds train and test, allowed: the training images: {folder}/train"])
    base = folder.resolve()
    return [folder_class(name) for name in names if list_images(base / name, base)]


def _beside(refs: str | Path, out: str | Path) -> str | None:
    """The folder as the bank names it, if it lies in the bank's folder."""
    if str(refs) == PETWORLD:
        return PETWORLD
    base, folder = Path(out).resolve().parent, Path(refs).resolve()
    return folder.relative_to(base).as_posix() if folder != base and folder.is_relative_to(base) else None
