"""CUB-200-2011, read from its own text files."""

from pathlib import Path

from fastgen.datasets.source import Source, by_class, readable, require

LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")


def cub(root: Path) -> Source:
    """CUB-200-2011: 200 birds, official training and test images."""
    what, folder = "CUB-200-2011", root / "CUB_200_2011"
    require(folder, ["images/", *LISTS], what=what)
    with readable(folder, what=what):
        names, labels, trains, classes = (_pairs(folder / name) for name in LISTS)
        numbers = {number: label for label, number in enumerate(classes)}
        birds = tuple(name.split(".", 1)[1].replace("_", " ") for name in classes.values())
        parts = []
        for wanted in ("1", "0"):
            chosen = [image for image in names if trains[image] == wanted]
            paths = [folder / "images" / names[image] for image in chosen]
            parts.append(by_class(birds, [numbers[labels[image]] for image in chosen], paths))
    return Source(folder=folder, classes=birds, train=parts[0], test=parts[1])


def _pairs(path: Path) -> dict[str, str]:
    """Number -> what stands behind it, in the order of the file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {number: text for number, text in (line.split(" ", 1) for line in lines if line.strip())}
