"""Rows as an image folder: one folder of PNG per class, and metadata.jsonl as Hugging Face's imagefolder reads it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fastgen.export.pictures import Picture, json_line


def write_image_folder(folder: Path, pictures: Iterator[Picture], classes: Sequence[str]) -> None:
    """Write `<class>/<plan index>.png` and a line of metadata.jsonl for every row.

    Args:
        folder: empty.
        pictures: in the order of the lines.
        classes: names; `label` of a line counts in them.
    """
    names = class_folders(classes)
    with open(folder / "metadata.jsonl", "x", encoding="utf-8", newline="\n") as lines:
        for picture in pictures:
            fields = picture.fields
            name = f"{names[fields['label']]}/{fields['plan_index']:08d}.png"
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(picture.png)
            # Readers of JSON lines stop at 63 bits, a seed has 64.
            lines.write(json_line({"file_name": name, **fields, "seed": str(fields["seed"])}) + "\n")


def class_folders(classes: Sequence[str]) -> list[str]:
    """The folder of every class: its name, made safe for a path; a name that is taken gets its label appended."""
    found: list[str] = []
    for label, name in enumerate(classes):
        safe = "".join("_" if char in '/\\:*?"<>|' or ord(char) < 32 else char for char in name)
        safe = f"_{safe[1:]}" if safe.startswith(".") else safe.rstrip(". ") or "_"
        taken = {other.casefold() for other in found}
        found.append(f"{safe}-{label}" if safe.casefold() in taken else safe)
    return found
