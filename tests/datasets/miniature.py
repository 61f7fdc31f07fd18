"""Miniature copies of the published layouts: few pictures of few pixels, in the real file formats.

Every picture's colour says its class, (40 * label mod 256, 200, number), so that no reader has to be believed.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

CARS = ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012", "Audi S4 Sedan 2012")
AIRCRAFT = ("707-320", "737-200", "F/A-18", "DC-10")
BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")
_numbers = iter(range(10**9))


def picture(path: Path, label: int) -> None:
    """Writes a JPEG of 8 x 8 pixels of one colour; no two are the same file."""
    number = next(_numbers)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((8, 8, 3), (label * 2 % 256, 200, number % 256), np.uint8)
    Image.fromarray(pixels).save(path, "JPEG", quality=95, comment=f"{label}/{number}".encode())


def label_of(path: Path) -> int:
    """The label that `picture` was given."""
    with Image.open(path) as image:
        return int(image.info["comment"].split(b"/")[0])


def pets(root: Path, classes: list[str], *, train: int = 6, test: int = 5) -> None:
    """oxford-iiit-pet, with lists in an order that is not sorted and names in the data set's spelling."""
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    for name, count, first in (("trainval", train, 0), ("test", test, train)):
        lines = []
        for label, class_ in enumerate(classes):
            is_cat = class_ in ("Abyssinian", "Bengal", "Birman", "Bombay")
            spelt = class_.replace(" ", "_") if is_cat else class_.replace(" ", "_").lower()
            for index in reversed(range(first, first + count)):
                picture(folder / "images" / f"{spelt}_{index + 1}.jpg", label)
                lines.append(f"{spelt}_{index + 1} {label + 1} {1 if is_cat else 2} 1\n")
        (folder / "annotations" / f"{name}.txt").write_text("".join(lines))


def flowers102(root: Path, *, train: int = 2, val: int = 2, test: int = 3) -> None:
    """flowers-102 with 102 classes; ids of a class are scattered as in the original."""
    folder = root / "flowers-102"
    per_class = train + val + test
    rng = np.random.default_rng(5)
    labels = rng.permutation(np.repeat(np.arange(1, 103), per_class))
    parts: dict[str, list[int]] = {"trnid": [], "valid": [], "tstid": []}
    for label in range(1, 103):
        ids = rng.permutation(np.flatnonzero(labels == label) + 1).tolist()
        parts["trnid"] += ids[:train]
        parts["valid"] += ids[train : train + val]
        parts["tstid"] += ids[train + val :]
    for index, label in enumerate(labels, start=1):
        picture(folder / "jpg" / f"image_{index:05d}.jpg", int(label) - 1)
    savemat(folder / "imagelabels.mat", {"labels": labels[None].astype(np.uint8)})
    savemat(folder / "setid.mat", {name: np.array([ids], np.uint16) for name, ids in parts.items()})


def aircraft(root: Path, *, train: int = 5, test: int = 3) -> None:
    """fgvc-aircraft-2013b with four variants, one of them with a slash."""
    data = root / "fgvc-aircraft-2013b" / "data"
    data.mkdir(parents=True)
    (data / "variants.txt").write_text("".join(f"{name}\n" for name in AIRCRAFT))
    number = 1000000
    for part, count in (("trainval", train), ("test", test)):
        lines = []
        for _ in range(count):
            for label, name in enumerate(AIRCRAFT):
                number += 1
                picture(data / "images" / f"{number}.jpg", label)
                lines.append(f"{number} {name}\n")
        (data / f"images_variant_{part}.txt").write_text("".join(lines))


def cars(root: Path, *, train: int = 5, test: int = 4) -> None:
    """stanford_cars: structures of Matlab, with the fields of the original."""
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = np.empty((1, len(CARS)), object)
    names[0] = CARS
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    fields = [(f"bbox_{end}", "O") for end in ("x1", "y1", "x2", "y2")] + [("class", "O"), ("fname", "O")]
    places = {"train": "devkit/cars_train_annos", "test": "cars_test_annos_withlabels"}
    for part, count in (("train", train), ("test", test)):
        found = []
        for index in range(count * len(CARS)):
            label, name = index % len(CARS), f"{index + 1:05d}.jpg"
            picture(folder / f"cars_{part}" / name, label)
            found.append((1, 1, 8, 8, label + 1, name))
        savemat(folder / f"{places[part]}.mat", {"annotations": np.array([found], dtype=fields)})


def cub(root: Path, *, per_class: int = 6) -> None:
    """CUB_200_2011 with three birds; every second picture is to train on."""
    folder = root / "CUB_200_2011"
    folder.mkdir(parents=True)
    lines: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": []}
    number = 0
    for label, bird in enumerate(BIRDS):
        for index in range(per_class):
            number += 1
            name = f"{bird}/{bird[4:]}_{index:04d}_{number}.jpg"
            picture(folder / "images" / name, label)
            for key, value in zip(lines, (name, label + 1, index % 2), strict=True):
                lines[key].append(f"{number} {value}\n")
    lines["classes"] = [f"{label + 1} {bird}\n" for label, bird in enumerate(BIRDS)]
    for key, of_list in lines.items():
        (folder / f"{key}.txt").write_text("".join(of_list))


def caltech101(root: Path, folders: list[str], *, per_class: int = 5) -> None:
    """caltech101/101_ObjectCategories with its background class."""
    where = root / "caltech101" / "101_ObjectCategories"
    for label, name in enumerate([*folders, "BACKGROUND_Google"]):
        for index in range(per_class):
            picture(where / name / f"image_{index + 1:04d}.jpg", label)
