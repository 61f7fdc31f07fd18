"""Captions of real images, one JSON line per image: what its background and pose are, or any other named attribute.

    {"file_name": "Beagle/00003.png", "background": "snow", "pose": "running"}

`file_name` is relative to the folder of images, whose subfolders are the classes. These are the fields that `fastgen
petworld` exports (OUT/train/metadata.jsonl) and that `fastgen caption` writes; all others are passed over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fastgen.bank.class_names import folder_class
from fastgen.errors import BankError, FieldErrors, FieldProblem
from fastgen.fields import Problems, inside_path, parse_object, text
from fastgen.files import sha256_json

ATTRIBUTES = ("background", "pose")
"""What BOB (arXiv 2510.24078, section 3.1) asks of every image."""
_VALUE = text(longest=500, one_line=True)
_CLASS = text(longest=500, one_line=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """What one real image shows beside its class.

    Attributes:
        file: relative path, `<class>/<image>`; the id of the image.
        class_: the field `class`, else the folder of the image, with blanks for "_".
        attributes: name -> a few words; all of one image, so that they can be drawn together.
    """

    file: str
    class_: str
    attributes: Mapping[str, str]


def read_captions(path: str | Path, *, attributes: Sequence[str] = ATTRIBUTES) -> list[Caption]:
    """Read and check a file of captions.

    Args:
        path: JSONL, UTF-8.
        attributes: every line must have all of them; other fields are passed over.

    Returns:
        The captions, in the order of the file.

    Raises:
        BankError: with all problems, by file, line and field.
    """
    path = Path(path)
    problems: list[str] = []
    found: list[Caption] = []
    first: dict[str, int] = {}
    for number, line in enumerate(_lines(path), start=1):
        try:
            caption = _caption(parse_object(line), attributes)
        except FieldErrors as error:
            problems += [f"{path}:{number}: {problem}" for problem in error.problems]
            continue
        if first.setdefault(caption.file, number) != number:
            allowed = f"every image once; line {first[caption.file]} has it already"
            problems.append(f"{path}:{number}: {FieldProblem('file_name', caption.file, allowed)}")
        found.append(caption)
    if not found and not problems:
        problems.append(f"{path}: got no captions, allowed: one JSON object per image and line")
    if problems:
        raise BankError(problems)
    return found


def attributes_sha256(captions: Sequence[Caption]) -> str:
    """Hash of a bank of attributes: the images, their classes and what was read off them, in order."""
    return sha256_json([[caption.file, caption.class_, dict(caption.attributes)] for caption in captions])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BankError([f"{path}: cannot be read ({reason}); give a JSONL file of captions, in UTF-8"]) from None


def _caption(found: Mapping[str, Any], attributes: Sequence[str]) -> Caption:
    problems = Problems()
    for name in ("file_name", *attributes):
        if found.get(name) is None:
            problems.add_text(name, "nothing", "every line needs file_name and " + ", ".join(attributes))
    values = {name: _VALUE(problems, name, found[name]) for name in attributes if found.get(name) is not None}
    file = found.get("file_name")
    file = None if file is None else inside_path(problems, "file_name", file)
    class_ = found.get("class")
    if class_ is not None:
        class_ = _CLASS(problems, "class", class_)
    elif file is not None:
        parts = PurePosixPath(file).parts
        if len(parts) == 2:
            class_ = folder_class(parts[0])
        else:
            allowed = "<class>/<image>, relative to the training images (of PetWorld: train/metadata.jsonl), or a class"
            problems.add("file_name", file, allowed)
    problems.raise_if_any()
    assert file is not None and class_ is not None
    return Caption(file=file, class_=class_, attributes={name: str(value) for name, value in values.items()})
