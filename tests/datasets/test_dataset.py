"""The folder that `fastgen dataset` makes, and that other commands read it."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from fastgen.bank.class_names import read_class_names
from fastgen.bank.read import open_bank
from fastgen.cli import main
from fastgen.datasets.dataset import dataset
from fastgen.errors import FastgenError, FieldErrors, OutputError
from fastgen.plan.references import find_references
from fastgen.train.data import find_images, find_real
from tests.datasets import miniature
from tests.datasets.test_layouts import PROMPTS, bank_classes, caltech_folders


def quiet(_: str) -> None:
    """Takes what `dataset` says."""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def pets_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of each breed to train on, two to test on; do not write into it."""
    root = tmp_path_factory.mktemp("pets")
    miniature.pets(root, bank_classes("pets"), train=3, test=2)
    return root


def test_shipped_bank_finds_its_references_and_a_training_its_images(pets_root: Path, tmp_path: Path) -> None:
    out = dataset("pets", pets_root, out=tmp_path / "pets", shots=1, say=quiet)
    assert sorted(path.name for path in out.iterdir()) == ["classes.txt", "dataset.json", "test", "train"]
    assert read_class_names(out / "classes.txt") == bank_classes("pets")
    header = open_bank(PROMPTS / "pets.jsonl").header
    references = find_references(out / "train", header, bank_dir=PROMPTS)
    assert references.classes == header.classes
    assert all(len(references.of_class(name)) == 1 for name in header.classes)
    training, test = find_real(out, None)
    assert list(training.classes) == bank_classes("pets") and test is not None and len(test) == 37
    for images in (training, test):
        for path, label in zip(images.paths, images.labels, strict=True):
            assert miniature.label_of(images.root / path) == label


def test_banks_of_caltech_run_on_its_folders(tmp_path: Path) -> None:
    miniature.caltech101(tmp_path, caltech_folders(), per_class=3)
    out = dataset("caltech101", tmp_path, out=tmp_path / "out", shots=1, say=quiet)
    header = open_bank(PROMPTS / "caltech101.jsonl").header
    references = find_references(out / "train", header, bank_dir=PROMPTS)
    assert references.classes == header.classes
    for label, name in enumerate(header.classes):
        assert [miniature.label_of(out / "train" / one.path) for one in references.of_class(name)] == [label]


def test_pictures_are_hard_links_and_copies_where_links_are_not_possible(
    pets_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = dataset("pets", pets_root, out=tmp_path / "linked", say=quiet)
    place = linked / "train" / "Pug"
    originals = pets_root / "oxford-iiit-pet" / "images"
    assert all(path.samefile(originals / path.name) and not path.is_symlink() for path in place.iterdir())

    def no_links(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    copied = dataset("pets", pets_root, out=tmp_path / "copied", say=quiet)
    counts = [json.loads((out / "dataset.json").read_text()) for out in (linked, copied)]
    total = 37 * (2 + 1)  # half of three, rounded up, and half of two
    assert [(c["linked"], c["copied"]) for c in counts] == [(total, 0), (0, total)]
    files = [contents(out) for out in (linked, copied)]
    assert all(of.pop("dataset.json") for of in files) and files[0] == files[1]


def test_linked_originals_are_followed_to_the_picture(tmp_path: Path) -> None:
    miniature.picture(tmp_path / "store" / "x.jpg", 0)
    (tmp_path / "root" / "cat").mkdir(parents=True)
    (tmp_path / "root" / "cat" / "x.jpg").symlink_to(tmp_path / "store" / "x.jpg")
    out = dataset("folder", tmp_path / "root", out=tmp_path / "out", say=quiet)
    assert not (out / "train" / "cat" / "x.jpg").is_symlink()
    assert miniature.label_of(out / "train" / "cat" / "x.jpg") == 0


def test_record_and_the_same_command_again(pets_root: Path, tmp_path: Path) -> None:
    said: list[str] = []
    options = {"split": "official", "seed": 3, "shots": 1, "val_per_class": 1}
    out = dataset("pets", pets_root, out=tmp_path / "out", **options, say=said.append)
    assert said == [f"{out}: 37 classes, images: 37 train, 37 val, 74 test"]
    about = json.loads((out / "dataset.json").read_text())
    assert about["fastgen_dataset"] == 1
    assert about["arguments"] == {"name": "pets", "root": str(pets_root), **options, "imbalance": None}
    assert about["source"] == {"folder": str((pets_root / "oxford-iiit-pet").resolve()), "images": 185}
    assert about["classes"] == bank_classes("pets") and about["renamed"] == {} and about["left_out"] == []
    assert {part: sum(of.values()) for part, of in about["counts"].items()} == {"train": 37, "val": 37, "test": 74}
    assert len(find_images(out / "val", about["classes"])) == 37
    before = (out / "dataset.json").stat()
    dataset("pets", pets_root, out=out, **options, say=said.append)
    assert (out / "dataset.json").stat() == before and "nothing to do" in said[-1]
    with pytest.raises(FastgenError, match="other arguments .*shots: there 1, asked for 2"):
        dataset("pets", pets_root, out=out, **(options | {"shots": 2}), say=quiet)
    next((out / "val" / "Pug").iterdir()).unlink()
    with pytest.raises(FastgenError, match=r"val.Pug: holds 0 images of 1; remove"):
        dataset("pets", pets_root, out=out, **options, say=quiet)
    (out / "dataset.json").write_text("{}")
    with pytest.raises(FastgenError, match="cannot be read .*remove .* and try again"):
        dataset("pets", pets_root, out=out, **options, say=quiet)


def test_slash_in_a_class_name(tmp_path: Path) -> None:
    miniature.cars(tmp_path)
    out = dataset("cars", tmp_path, out=tmp_path / "out", split="official", say=quiet)
    assert json.loads((out / "dataset.json").read_text())["renamed"] == {
        "Ram C-V Cargo Van Minivan 2012": "Ram C/V Cargo Van Minivan 2012"
    }
    assert read_class_names(out / "classes.txt") == ["AM General Hummer SUV 2000", "Ram C-V Cargo Van Minivan 2012",
                                                     "Audi S4 Sedan 2012"]  # fmt: skip
    assert find_real(out, None)[0].classes == tuple(sorted(read_class_names(out / "classes.txt")))


def test_few_images_and_doubles_are_said(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for index in range(3):
            miniature.picture(tmp_path / "root" / part / "cat" / f"{index}.jpg", 0)
    twin = (tmp_path / "root" / "train" / "cat" / "0.jpg").read_bytes()
    (tmp_path / "root" / "test" / "cat" / "1.jpg").write_bytes(twin)
    said: list[str] = []
    out = dataset("folder", tmp_path / "root", out=tmp_path / "out", split="official", shots=5, say=said.append)
    assert said[1:] == [
        "note: 1 classes have fewer than 5 training images",
        "note: 1 images are left out, being the same as others (left_out in dataset.json)",
    ]
    assert json.loads((out / "dataset.json").read_text())["left_out"] == ["test/cat/1.jpg"]
    find_real(out, None)  # refuses a test image that is trained on


def test_what_is_wrong_is_said_before_anything_is_made(tmp_path: Path) -> None:
    miniature.picture(tmp_path / "root" / "cat" / "a.jpg", 0)
    root, out = tmp_path / "root", tmp_path / "out"
    with pytest.raises(FieldErrors) as error:
        dataset("pet", root, out=out, split="half", seed=-1, shots=0, val_per_class=-2, imbalance=0.01, say=quiet)
    assert [problem.field for problem in error.value.problems] == [
        "name", "split", "seed", "val_per_class", "shots", "imbalance", "shots"
    ]  # fmt: skip
    with pytest.raises(FastgenError, match="Caltech-101 has no official split; give --split halves"):
        dataset("caltech101", root, out=out, split="official", say=quiet)
    with pytest.raises(OutputError, match="exists, and is no data set of this command"):
        dataset("folder", root, out=root, say=quiet)
    assert not out.exists()
    result = CliRunner().invoke(main, ["dataset", "pets", str(root), "--out", str(out)])
    assert result.exit_code == 2 and "Oxford-IIIT Pet: not found: " in result.output and not out.exists()


def test_command(tmp_path: Path) -> None:
    miniature.cub(tmp_path)
    words = ["dataset", "cub", str(tmp_path), "--out", str(tmp_path / "out"), "--split", "official", "--shots", "2"]
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0 and result.stdout == f"{tmp_path / 'out'}\n"
    assert len(list((tmp_path / "out" / "train" / "Laysan Albatross").iterdir())) == 2
