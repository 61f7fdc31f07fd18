"""Readers of the published layouts, against torchvision and against what the pictures themselves say."""

import json
from pathlib import Path

import pytest
from torchvision.datasets import Caltech101, FGVCAircraft, Flowers102, OxfordIIITPet, StanfordCars

from fastgen.datasets.dataset import READERS
from fastgen.datasets.source import Source
from fastgen.errors import FastgenError
from tests.datasets import miniature

PROMPTS = Path(__file__).parents[2] / "prompts"


def bank_classes(name: str) -> list[str]:
    with open(PROMPTS / f"{name}.jsonl", encoding="utf-8") as lines:
        return json.loads(next(lines))["classes"]


def caltech_folders() -> list[str]:
    """The folders of Caltech-101 from the bank: all in small letters but four."""
    capitals = ("faces", "faces_easy", "leopards", "motorbikes")
    folders = [name.replace(" ", "_") for name in bank_classes("caltech101")]
    return [name.capitalize() if name in capitals else name for name in folders]


def any_mat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets torchvision take .mat files that are not the published ones."""
    files = {key: (name, None) for key, (name, _) in Flowers102._file_dict.items()}
    monkeypatch.setattr(Flowers102, "_file_dict", files)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All data sets side by side; do not write into it."""
    root = tmp_path_factory.mktemp("datasets")
    miniature.pets(root, bank_classes("pets"), train=2, test=1)
    miniature.flowers102(root)
    miniature.aircraft(root)
    miniature.cars(root)
    miniature.cub(root)
    miniature.caltech101(root, caltech_folders(), per_class=2)
    return root


def labelled(part: dict[str, list[Path]] | None, source: Source) -> list[tuple[str, int]]:
    assert part is not None
    return sorted((str(path), source.classes.index(name)) for name, paths in part.items() for path in paths)


def assert_labels_are_true(source: Source) -> None:
    for name, paths in source.everything.items():
        assert {miniature.label_of(path) for path in paths} == {source.classes.index(name)}


def test_pets_as_torchvision_labels_them_and_named_as_in_the_bank(root: Path) -> None:
    source = READERS["pets"](root)
    source.check()
    assert list(source.classes) == bank_classes("pets") and len(source.classes) == 37
    for part, split in ((source.train, "trainval"), (source.test, "test")):
        truth = OxfordIIITPet(root, split=split)
        assert labelled(part, source) == sorted(zip(map(str, truth._images), truth._labels, strict=True))
    assert [path.name for path in source.train["Beagle"]] == ["beagle_2.jpg", "beagle_1.jpg"]  # order of the list
    assert_labels_are_true(source)


def test_flowers_as_torchvision_labels_them_and_named_as_in_the_bank(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    any_mat(monkeypatch)
    source = READERS["flowers102"](root)
    source.check()
    assert list(source.classes) == bank_classes("flowers102") == [name.rstrip("?") for name in Flowers102.classes]
    for part, split in ((source.train, "train"), (source.val, "val"), (source.test, "test")):
        truth = Flowers102(root, split=split)
        assert labelled(part, source) == sorted(zip(map(str, truth._image_files), truth._labels, strict=True))
    assert_labels_are_true(source)


def test_caltech_as_torchvision_labels_it_and_named_as_in_the_bank(root: Path) -> None:
    source = READERS["caltech101"](root)
    source.check()
    assert list(source.classes) == bank_classes("caltech101") and len(source.classes) == 101
    truth = Caltech101(root)
    where = root / "caltech101" / "101_ObjectCategories"
    paths = [str(where / truth.categories[y] / f"image_{i:04d}.jpg") for y, i in zip(truth.y, truth.index, strict=True)]
    assert labelled(source.train, source) == sorted(zip(paths, truth.y, strict=True))
    assert_labels_are_true(source)
    order = list(source.order)  # DALDA's code draws in the order of the names in small letters
    assert order == sorted(source.classes)
    assert order[order.index("ewer") + 1 : order.index("ferry")] == ["faces", "faces easy"]


def test_aircraft_cars_and_birds(root: Path) -> None:
    planes, vans, birds = (READERS[name](root) for name in ("aircraft", "cars", "cub"))
    truth = FGVCAircraft(root, split="trainval")
    assert labelled(planes.train, planes) == sorted(zip(truth._image_files, truth._labels, strict=True))
    assert planes.classes == ("707-320", "737-200", "F-A-18", "DC-10") and planes.renamed == {"F-A-18": "F/A-18"}
    for part, split in ((vans.train, "train"), (vans.test, "test")):
        assert labelled(part, vans) == sorted(StanfordCars(root, split=split)._samples)
    assert vans.classes[1] == "Ram C-V Cargo Van Minivan 2012"
    assert birds.classes == ("Black footed Albatross", "Laysan Albatross", "Sooty Albatross")
    assert birds.test is not None
    numbers = {name: [int(p.stem.split("_")[-2]) % 2 for p in part["Laysan Albatross"]]
               for name, part in (("train", birds.train), ("test", birds.test))}  # fmt: skip
    assert numbers == {"train": [1, 1, 1], "test": [0, 0, 0]}
    for source in (planes, vans, birds):
        source.check()
        assert_labels_are_true(source)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("pets", ["oxford-iiit-pet/images/", "oxford-iiit-pet/annotations/trainval.txt"]),
        ("caltech101", ["caltech101/101_ObjectCategories/"]),
        ("flowers102", ["flowers-102/jpg/", "flowers-102/imagelabels.mat", "flowers-102/setid.mat"]),
        ("aircraft", ["fgvc-aircraft-2013b/data/images_variant_trainval.txt"]),
        ("cars", ["stanford_cars/cars_test_annos_withlabels.mat", "stanford_cars/devkit/cars_meta.mat"]),
        ("cub", ["CUB_200_2011/train_test_split.txt", "CUB_200_2011/classes.txt"]),
    ],
)
def test_what_is_missing_is_named_and_nothing_is_made(tmp_path: Path, name: str, expected: list[str]) -> None:
    with pytest.raises(FastgenError) as error:
        READERS[name](tmp_path)
    for path in expected:
        assert str(tmp_path / path.rstrip("/")) in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_lists_that_name_absent_pictures_or_are_damaged(tmp_path: Path) -> None:
    miniature.cub(tmp_path)
    gone = sorted((tmp_path / "CUB_200_2011/images/002.Laysan_Albatross").iterdir())[:2]
    for path in gone:
        path.unlink()
    with pytest.raises(FastgenError, match=r"name 2 pictures that are not there(.|\n)*Laysan_Albatross_0000"):
        READERS["cub"](tmp_path).check()
    (tmp_path / "CUB_200_2011/image_class_labels.txt").write_text("1\n")
    with pytest.raises(FastgenError, match="CUB-200-2011: the lists in .* cannot be read .*; unpack it again"):
        READERS["cub"](tmp_path)
    miniature.cars(tmp_path)
    (tmp_path / "stanford_cars/devkit/cars_meta.mat").write_bytes(b"no matlab")
    with pytest.raises(FastgenError, match="Stanford Cars: the lists in .* cannot be read"):
        READERS["cars"](tmp_path)


def test_flowers_lists_that_are_not_the_published_ones(root: Path) -> None:
    with pytest.raises(FastgenError, match=r"Flowers102: the lists in .* cannot be read .*corrupted"):
        READERS["flowers102"](root)


def test_any_folder_with_and_without_a_split_of_its_own(tmp_path: Path) -> None:
    plain, split = tmp_path / "plain", tmp_path / "split"
    for folder in (plain, *(split / part for part in ("train", "val", "test"))):
        for label, name in enumerate(("Cat", "Dog")):
            miniature.picture(folder / name / "a.jpg", label)
    (plain / ".hidden").mkdir()
    (plain / "empty").mkdir()
    (split / "test" / "Dog").rename(split / "test" / "dog")
    pooled, parted = READERS["folder"](plain), READERS["folder"](split)
    assert pooled.classes == parted.classes == ("Cat", "Dog")
    assert pooled.pooled and pooled.test is None and not parted.pooled
    assert parted.test is not None and parted.test["Dog"] == [split / "test" / "dog" / "a.jpg"]
    miniature.picture(split / "test" / "Horse" / "a.jpg", 2)
    with pytest.raises(FastgenError, match="class 'Horse' has no folder in"):
        READERS["folder"](split)
    miniature.picture(plain / "cat" / "a.jpg", 0)
    with pytest.raises(FastgenError, match="'Cat' and 'cat' differ in case"):
        READERS["folder"](plain).check()
    with pytest.raises(FastgenError, match="no class folder with pictures; expected"):
        READERS["folder"](plain / "empty")
