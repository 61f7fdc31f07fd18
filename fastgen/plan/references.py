"""Reference images: which ones a class has, and their pixels.

A source is a folder with one folder of images per class, or "petworld", whose pictures are drawn on the fly.
The id of a PetWorld reference, `petworld/<breed>/<seed>-<index>`, holds all that is needed to draw it again.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastgen.errors import ReferenceImageError
from fastgen.header_parts import PETWORLD
from fastgen.petworld.attributes import NOVEL_PETS, OXFORD_PETS, Scene
from fastgen.petworld.render import render, sample_scene
from fastgen.plan.folders import check_spelling, inside, list_folders, list_images, match_names
from fastgen.plan.pictures import SUFFIXES, open_picture, picture_size
from fastgen.records import Header, Ref
from fastgen.seeds import row_seed, stream

if TYPE_CHECKING:
    from PIL import Image

PETWORLD_SIZE = 64
"""Side of a PetWorld reference in pixels; the breeds are designed for it."""

PETWORLD_REALISM = 0.5
"""References stand for real photographs: blurred, noisy and tinted, unlike a training set of drawings."""

PETWORLD_ID = re.compile(r"petworld/([^/]+)/(0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,18})")
BREEDS = (*OXFORD_PETS, *NOVEL_PETS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One reference image; its pixels are read when asked for.

    Attributes:
        id: unique among the references of a source.
        class_: name of its class, as in the header.
        label: index of its class in the header.
        key: short name, unique within the class; goes into the ids of planned rows.
        path: what a row's `ref.path` says, or None when the id alone finds it.
        file: the image file, or None when it is drawn on the fly.
    """

    id: str
    class_: str
    label: int
    key: str
    path: str | None = None
    file: Path | None = None

    @property
    def origin(self) -> str:
        """Where the pixels come from: the same for two references only if their pixels are."""
        return self.id if self.file is None else str(self.file)

    def load(self) -> "Image.Image":
        """Returns the image, RGB, in its own size.

        Raises:
            ReferenceImageError: if the file is missing or cannot be read as an image.
        """
        scene = self.scene()
        if scene is None:
            assert self.file is not None, "a reference is either drawn or a file"
            return open_picture(self.file)
        from PIL import Image

        return Image.fromarray(render(scene, PETWORLD_SIZE))

    def size(self) -> tuple[int, int] | None:
        """Width and height of the image in pixels; None if it cannot be read, which generation will say."""
        return (PETWORLD_SIZE, PETWORLD_SIZE) if self.file is None else picture_size(self.file)

    def scene(self) -> Scene | None:
        """The ground truth of a PetWorld reference; None for a file."""
        return petworld_scene(self.id) if self.file is None else None

    def as_ref(self, role: Sequence[str] = ("ip",)) -> Ref:
        """The reference as a row names it."""
        return Ref(id=self.id, path=self.path, label=self.label, role=tuple(role))


def petworld_scene(reference_id: str) -> Scene:
    """What the picture `petworld/<breed>/<seed>-<index>` shows; a pure function of the id.

    Every breed has its own stream of scenes, so that reference 0 of all classes does not share pose and
    place.

    Raises:
        ReferenceImageError: if the id is not of that form, or there is no such breed.
    """
    match = PETWORLD_ID.fullmatch(reference_id)
    if match is None or match[1] not in BREEDS:
        close = difflib.get_close_matches(match[1], BREEDS, n=3) if match else []
        hint = f" (close: {', '.join(close)})" if close else ""
        raise ReferenceImageError(
            f"PetWorld reference: got {reference_id!r}; allowed: petworld/<breed>/<seed>-<index> of a breed "
            f"of PetWorld, as in petworld/Beagle/0-3{hint}"
        )
    breed, seed, index = match[1], int(match[2]), int(match[3])
    realism = (PETWORLD_REALISM, PETWORLD_REALISM)
    return sample_scene(row_seed(seed, f"petworld/{breed}"), index, breeds=(breed,), realism=realism)


class References:
    """The references of a bank: those of its source by class, and any that a row names itself."""

    def __init__(
        self,
        header: Header,
        *,
        roots: Sequence[Path],
        places: Mapping[str, str],
        folder: Path | None = None,
        shots: int | None = None,
        seed: int = 0,
    ) -> None:
        """Sets up the lookup; `find_references` is the usual way.

        Args:
            header: gives the class names and their order.
            roots: resolved folders that the paths in rows may be relative to; the first that has the file.
            places: class name -> name of its folder, or of its breed; empty for no source at all.
            folder: resolved folder with the class folders; None for PetWorld or no source.
            shots: references per class; None for all of them.
            seed: chooses the shots.
        """
        self.roots = tuple(roots)
        self.shots = shots
        self._header = header
        self._seed = seed
        self._folder = folder
        self._places = dict(places)
        self._known: dict[str, list[Reference]] = {}

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the header that have a folder (perhaps an empty one) or a breed."""
        return tuple(self._places)

    @property
    def is_empty(self) -> bool:
        """Whether there is no source: prompt rows then have no references."""
        return not self._places

    def of_class(self, name: str) -> list[Reference]:
        """The chosen references of a class, always the same ones in the same order.

        Raises:
            ReferenceImageError: if the source has none for this class.
        """
        if name not in self._known:
            if name not in self._places:
                raise self._no_references(name)
            found = self._breed(name) if self._folder is None else self._images(name, self._folder)
            self._known[name] = list(found)
        return self._known[name]

    def find(self, ref: Ref | str, *, label: int | None = None) -> Reference:
        """The reference that a row names: a file inside the folder, or a PetWorld id.

        Args:
            ref: the row's `ref`, or an id.
            label: class of the row, which holds when the reference has no label of its own.

        Raises:
            ReferenceImageError: if there is no such file, or it leaves its folder, also by a symbolic link.
        """
        ref = Ref(id=ref) if isinstance(ref, str) else ref
        own = ref.label if ref.label is not None else label if label is not None else 0
        class_ = self._header.classes[own]
        if ref.path is None and PETWORLD_ID.fullmatch(ref.id):
            petworld_scene(ref.id)
            return Reference(id=ref.id, class_=class_, label=own, key=ref.id.rpartition("/")[2])
        file = inside(self.roots, ref.path or ref.id)
        return Reference(id=ref.id, class_=class_, label=own, key=file.name, path=ref.path, file=file)

    def load(self, ref: Ref | str) -> "Image.Image":
        """Returns the image that a row or an id names, RGB, in its own size.

        Raises:
            ReferenceImageError: if it cannot be found or read.
        """
        return self.find(ref).load()

    def _breed(self, name: str) -> Iterator[Reference]:
        label = self._header.label_of(name) or 0
        for index in range(self.shots or 1):
            key = f"{self._seed}-{index}"
            yield Reference(id=f"petworld/{self._places[name]}/{key}", class_=name, label=label, key=key)

    def _images(self, name: str, base: Path) -> Iterator[Reference]:
        label = self._header.label_of(name) or 0
        files = list_images(base / self._places[name], base)
        if not files:
            where, ends = base / self._places[name], ", ".join(SUFFIXES)
            raise ReferenceImageError(f"references of class {name!r}: no image in {where}; allowed: {ends}")
        for file in _few(files, self.shots, self._seed, name):
            path = file.relative_to(base).as_posix()
            check_spelling(path)
            yield Reference(id=path, class_=name, label=label, key=file.name, path=path, file=file)

    def _no_references(self, name: str) -> ReferenceImageError:
        source = f"folders in {self._folder}" if self._folder else "breeds of PetWorld"
        if self.is_empty:
            return ReferenceImageError(
                f"references of class {name!r}: got no source; give --refs DIR or --refs petworld"
            )
        close = difflib.get_close_matches(name, self._places.values(), n=3) or list(self._places.values())[:5]
        some = ", ".join(close)
        return ReferenceImageError(
            f"references of class {name!r}: none; allowed: a class among the {source}: {some}, ..."
        )


def find_references(
    source: str | Path | None,
    header: Header,
    *,
    bank_dir: str | Path,
    shots: int | None = None,
    seed: int = 0,
) -> References:
    """Finds the references of a bank's classes; class folders are read when their class is asked for.

    Args:
        source: folder with one folder of images per class, "petworld", or None for the header's `refs`.
            Folder names are compared with class names without regard to case, and with "_" and "-" as spaces.
        header: of the bank.
        bank_dir: folder of the bank; the header's `refs` is relative to it. The paths that rows name are
            relative to the folder of references, or else to this one.
        shots: references per class, chosen by `seed`; None for the header's `shots`, else all (PetWorld:
            one). A class with fewer images gives all it has. The shots for n are the first n of the shots for
            n + 1.
        seed: of the choice; each class has its own stream, so other classes do not change it.

    Returns:
        The references; empty if there is no source.

    Raises:
        ReferenceImageError: if the folder does not exist, no class matches, a name is ambiguous, or `shots`
            or `seed` is out of range.
    """
    shots = shots if shots is not None else header.defaults.get("shots")
    if shots is not None and shots < 1:
        raise ReferenceImageError(f"shots: got {shots}; allowed: 1 or more references per class")
    if not 0 <= seed < 2**63:
        raise ReferenceImageError(f"seed of the references: got {seed}; allowed: 0 to {2**63 - 1}")
    root = Path(bank_dir).resolve()
    chosen = source if source is not None else header.defaults.get("refs")
    if chosen is None or chosen == PETWORLD:
        places = {} if chosen is None else match_names(header.classes, BREEDS, "breeds of PetWorld")
        return References(header, roots=[root], places=places, shots=shots, seed=seed)
    folder = Path(chosen) if source is not None else inside([root], str(chosen), want="folder")
    if not folder.is_dir():
        raise ReferenceImageError(f"references: {folder} is no folder; give --refs DIR or --refs petworld")
    folder = folder.resolve()
    places = match_names(header.classes, list_folders(folder), f"folders in {folder}")
    return References(header, roots=[folder, root], places=places, folder=folder, shots=shots, seed=seed)


def _few(files: list[Path], shots: int | None, seed: int, class_: str) -> list[Path]:
    """The first `shots` of a random order that depends on seed and class name only."""
    if shots is None:
        return files
    order = stream(seed, f"shots/{class_}").permutation(len(files))
    return [files[i] for i in order[:shots]]
