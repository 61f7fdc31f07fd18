"""Tests of the PetWorld image folders."""

import json
from dataclasses import fields
from inspect import signature
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastgen import __version__
from fastgen.errors import FastgenError, OutputError
from fastgen.petworld import dataset
from fastgen.petworld.attributes import BACKGROUNDS, NOVEL_PETS, OXFORD_PETS, POSES, STYLES, Scene
from fastgen.petworld.breeds import PRETRAINING_PETS
from fastgen.petworld.dataset import export, own_places, pictures, training_counts
from fastgen.petworld.render import render
from fastgen.petworld.request import Request, check

PETS = ["Beagle", "Saint Bernard", "Kestrel Cat"]
SMALL = {"classes": PETS, "per_class": 3, "test_per_class": 2, "size": 16}
DEFAULTS = {f.name: f.default for f in fields(Request)}


def quiet(_: str) -> None:
    """Takes what `export` says."""


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def scene_of(line: dict) -> Scene:
    return Scene(**{f.name: line[f.name] for f in fields(Scene)})


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def scenes(subset: str, **options) -> list[Scene]:
    """The scenes of one subset, without drawing them."""
    request = check(**{**DEFAULTS, **options})
    counts = {"train": training_counts(request), "test": dict.fromkeys(request.classes, 40)}
    return [picture.scene for picture in pictures(request, counts) if picture.subset == subset]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small balanced export; do not write into it."""
    return export(tmp_path_factory.mktemp("petworld") / "pets", **SMALL, say=quiet)


def test_folder_has_one_folder_of_pictures_per_class(made):
    for subset, count in (("train", 3), ("test", 2)):
        assert sorted(p.name for p in (made / subset).iterdir() if p.is_dir()) == sorted(PETS)
        for name in PETS:
            files = sorted(p.name for p in (made / subset / name).iterdir())
            assert files == [f"{i:05d}.png" for i in range(count)]
            with Image.open(made / subset / name / "00000.png") as picture:
                assert (picture.size, picture.mode) == ((16, 16), "RGB")
    assert sorted(p.name for p in made.iterdir()) == ["metadata.jsonl", "petworld.json", "test", "train"]


def test_metadata_holds_the_whole_truth(made):
    lines = lines_of(made / "metadata.jsonl")
    assert {line["file_name"] for line in lines} == {
        p.relative_to(made).as_posix() for p in made.rglob("*.png")
    }
    for line in lines:
        assert set(line) == {"file_name", "captions", *(f.name for f in fields(Scene))}
        assert line["file_name"].split("/")[1] == line["breed"]
        assert 0.4 <= line["realism"] <= 0.8
        with Image.open(made / line["file_name"]) as picture:
            np.testing.assert_array_equal(np.asarray(picture), render(scene_of(line), 16))


def test_every_picture_has_several_different_captions(made):
    for line in lines_of(made / "metadata.jsonl"):
        assert len(set(line["captions"])) == dataset.CAPTIONS
        assert any(line["breed"].lower() in caption.lower() for caption in line["captions"])


def test_each_subset_repeats_its_metadata_for_loaders_that_look_there(made):
    for subset in ("train", "test"):
        own = lines_of(made / subset / "metadata.jsonl")
        renamed = [{**line, "file_name": f"{subset}/{line['file_name']}"} for line in own]
        everything = lines_of(made / "metadata.jsonl")
        assert renamed == [line for line in everything if line["file_name"].startswith(subset)]


def test_petworld_json_tells_how_the_folder_was_made(made):
    about = json.loads((made / "petworld.json").read_text())
    assert (about["fastgen_petworld"], about["fastgen_version"]) == (dataset.FORMAT, __version__)
    photo = {"styles": ["photo"], "realism": [0.4, 0.8], "seed": 0}
    assert about["arguments"] == {**SMALL, **photo, "split": "balanced"}
    assert about["counts"] == {"train": dict.fromkeys(PETS, 3), "test": dict.fromkeys(PETS, 2)}


def test_same_arguments_give_the_same_bytes_and_another_seed_does_not(made, tmp_path):
    assert contents(export(tmp_path / "again", **SMALL, say=quiet)) == contents(made)
    other = contents(export(tmp_path / "other", **SMALL, seed=1, say=quiet))
    assert all(data != other[name] for name, data in contents(made).items())


def test_rerun_does_nothing_and_says_so(made):
    said: list[str] = []
    before = {path: path.stat().st_mtime_ns for path in (made, *made.rglob("*"))}
    assert export(made, **SMALL, say=said.append) == made
    assert {path: path.stat().st_mtime_ns for path in (made, *made.rglob("*"))} == before
    assert len(said) == 1 and "up to date" in said[0]


@pytest.mark.parametrize(
    "change, difference",
    [
        ({"seed": 4}, "seed: there 0, asked for 4"),
        ({"realism": (0.0, 0.5)}, "realism: there [0.4, 0.8], asked for [0.0, 0.5]"),
        (
            {"split": "confounded"},
            'split: there "balanced", asked for "confounded"; confounding: there nothing',
        ),
        (
            {"classes": "novel"},
            'classes: there ["Beagle", "Saint Bernard", "Kestrel Cat"], asked for ["Alder',
        ),
    ],
)
def test_other_arguments_are_refused_with_what_differs(made, change, difference):
    with pytest.raises(FastgenError) as caught:
        export(made, **{**SMALL, **change}, say=quiet)
    assert difference in str(caught.value) and "choose another folder" in str(caught.value)
    assert "per_class" not in str(caught.value)


def test_other_format_is_refused(made, monkeypatch):
    monkeypatch.setattr(dataset, "FORMAT", dataset.FORMAT + 1)
    with pytest.raises(FastgenError, match=r"other arguments \(format: there 1, asked for 2\)"):
        export(made, **SMALL, say=quiet)


def test_incomplete_or_damaged_export_is_refused(tmp_path):
    out = export(tmp_path / "pets", **SMALL, say=quiet)
    (out / "train" / "Beagle" / "00001.png").unlink()
    with pytest.raises(FastgenError, match=r"Beagle: holds 2 pictures, 3 were written; remove"):
        export(out, **SMALL, say=quiet)
    (out / "petworld.json").write_text('{"fastgen_petworld"')
    with pytest.raises(FastgenError, match="cannot be read"):
        export(out, **SMALL, say=quiet)


def test_other_things_in_the_way_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for out in (tmp_path, tmp_path / "file", tmp_path / "link", tmp_path / "file" / "below"):
        with pytest.raises(OutputError):
            export(out, **SMALL, say=quiet)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "link"]


def test_an_empty_folder_is_filled_unless_it_is_the_working_one(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    assert (export(tmp_path / "empty", **SMALL, say=quiet) / "petworld.json").is_file()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(OutputError, match="choose another name"):
        export(".", **SMALL, say=quiet)


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    drawn: list[Scene] = []

    def fail_later(scene: Scene, size: int) -> np.ndarray:
        drawn.append(scene)
        if len(drawn) == 5:
            raise KeyboardInterrupt
        return render(scene, size)

    monkeypatch.setattr(dataset, "render", fail_later)
    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / "pets", **SMALL, say=quiet)
    assert list(tmp_path.iterdir()) == []


def test_class_sets_have_names():
    assert check(**{**DEFAULTS, "classes": "oxford"}).classes == OXFORD_PETS
    assert check(**{**DEFAULTS, "classes": "novel"}).classes == NOVEL_PETS


def test_defaults_are_written_the_same_in_both_places():
    parameters = signature(export).parameters
    written = {name: p.default for name, p in parameters.items() if name not in ("out", "say")}
    assert written == {**DEFAULTS, "classes": "oxford"}


def test_few_shot_is_the_beginning_of_balanced():
    few, many = scenes("train", split="few-shot", shots=2), scenes("train")
    assert len(few) == 2 * 37
    assert few == [scene for i, scene in enumerate(many) if i % 20 < 2]


def test_long_tail_falls_exponentially_in_an_order_of_the_seed():
    counts = [
        training_counts(check(**{**DEFAULTS, "split": "long-tail", "per_class": 500, "seed": seed}))
        for seed in (0, 1)
    ]
    falling = sorted(counts[0].values(), reverse=True)
    expected = [500 * 100 ** (-i / 36) for i in range(37)]
    np.testing.assert_allclose(falling, expected, atol=0.5)
    assert (falling[0], falling[-1]) == (500, 5)
    assert sorted(counts[1].values(), reverse=True) == falling
    assert list(counts[0]) == list(OXFORD_PETS) and counts[0] != counts[1]
    assert list(counts[0].values()) != falling


def test_long_tail_leaves_no_class_empty_and_one_class_full():
    assert min(training_counts(check(**{**DEFAULTS, "split": "long-tail"})).values()) == 1
    one = check(**{**DEFAULTS, "split": "long-tail", "classes": ["Pug"]})
    assert training_counts(one) == {"Pug": 20}


def test_long_tail_is_written_as_counted(tmp_path):
    out = export(tmp_path / "pets", **{**SMALL, "per_class": 4}, split="long-tail", imbalance=4, say=quiet)
    counts = json.loads((out / "petworld.json").read_text())["counts"]
    assert sorted(counts["train"].values()) == [1, 2, 4]
    for subset, of_class in counts.items():
        assert {n: len(list((out / subset / n).glob("*.png"))) for n in PETS} == of_class
    assert set(counts["test"].values()) == {2}


@pytest.mark.parametrize("rate", [0.0, 0.6, 0.9, 1.0])
def test_confounded_classes_are_in_their_own_place_as_often_as_asked(rate):
    options = {"split": "confounded", "classes": "novel", "confounding": rate, "per_class": 100}
    places = own_places(check(**{**DEFAULTS, **options}))
    own = [(s.background, s.pose) == places[s.breed] for s in scenes("train", **options)]
    assert np.mean(own) == pytest.approx(rate, abs=4 * (rate * (1 - rate) / len(own)) ** 0.5)


def test_confounded_leaves_the_test_set_and_everything_else_alone():
    options = {"classes": "novel", "per_class": 30}
    assert scenes("test", **options, split="confounded") == scenes("test", **options)
    for moved, plain in zip(
        scenes("train", **options, split="confounded"), scenes("train", **options), strict=True
    ):
        assert moved.detail_seed == plain.detail_seed and moved.light == plain.light
    places = own_places(check(**{**DEFAULTS, **options, "split": "confounded"}))
    own = [(s.background, s.pose) == places[s.breed] for s in scenes("test", **options, split="confounded")]
    assert np.mean(own) < 0.06


def test_every_class_has_a_place_of_its_own():
    fifty = [*OXFORD_PETS, *NOVEL_PETS, PRETRAINING_PETS[0]]
    request = check(**{**DEFAULTS, "classes": fifty, "split": "confounded"})
    places = list(own_places(request).values())
    assert set(places) == {(b, p) for b in BACKGROUNDS for p in POSES}
    assert {background for background, _ in places[:10]} == set(BACKGROUNDS)


def test_confounded_places_are_recorded(tmp_path):
    options = {**SMALL, "split": "confounded", "confounding": 1.0}
    out = export(tmp_path / "pets", **options, say=quiet)
    places = json.loads((out / "petworld.json").read_text())["places"]
    for line in lines_of(out / "train" / "metadata.jsonl"):
        assert places[line["breed"]] == {"background": line["background"], "pose": line["pose"]}


def test_no_scene_is_in_training_and_test():
    train, test = scenes("train", per_class=200), scenes("test", per_class=200)
    seeds = [scene.detail_seed for scene in (*train, *test)]
    assert len(set(seeds)) == len(seeds) == 37 * 240


def test_no_picture_is_in_training_and_test(made):
    assert len(set(contents(made).values())) == len(contents(made))


def test_classes_do_not_depend_on_each_other():
    alone = scenes("train", classes=["Pug"])
    assert alone == [scene for scene in scenes("train", classes=["Beagle", "Pug"]) if scene.breed == "Pug"]


def test_balanced_scenes_show_every_attribute_evenly():
    found = scenes("train", classes=["Pug"], per_class=1600, styles=STYLES, realism=(0.2, 0.3))
    for name, values in (("background", BACKGROUNDS), ("pose", POSES), ("style", STYLES)):
        shares = [sum(getattr(scene, name) == value for scene in found) / 1600 for value in values]
        np.testing.assert_allclose(shares, 1 / len(values), atol=0.045)
    assert all(0.2 <= scene.realism <= 0.3 for scene in found)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"classes": "Beagle"}, '"oxford", "novel" or a list of different breeds'),
        ({"classes": ["Beagel"]}, "did you mean 'Beagle'"),
        ({"classes": ["oxfrod"]}, "did you mean 'oxford'"),
        ({"classes": []}, "a list of different breeds"),
        ({"classes": ["Pug", "Pug"]}, "a list of different breeds"),
        ({"classes": [["Pug"]]}, "a list of different breeds"),
        ({"split": "few_shot"}, '"balanced" or "few-shot" or "long-tail" or "confounded"'),
        ({"per_class": 0}, "a whole number from 1 to 100000"),
        ({"split": "few-shot", "per_class": 20, "shots": 1.5}, "field 'shots': got 1.5, allowed: a whole"),
        ({"test_per_class": True}, "field 'test_per_class': got true, allowed: a whole number"),
        ({"split": "long-tail", "imbalance": 0.5}, "a number from 1 to 100000"),
        ({"split": "long-tail", "imbalance": float("nan")}, "a number from 1 to 100000"),
        ({"split": "confounded", "confounding": 1.1}, "a number from 0 to 1"),
        ({"split": "confounded", "classes": list(PRETRAINING_PETS)}, "got 64 classes, allowed: at most 50"),
        ({"styles": ["photo", "oil"]}, ", ".join(STYLES)),
        ({"styles": "photo"}, "a list of one or more different styles"),
        ({"realism": (0.8, 0.4)}, "two numbers, lower and upper end, from 0 to 1"),
        ({"realism": 0.5}, "two numbers, lower and upper end, from 0 to 1"),
        ({"seed": -1}, "a whole number from 0"),
        ({"size": 8}, "a whole number from 16 to 1024"),
    ],
)
def test_bad_arguments_are_answered_with_what_is_allowed(tmp_path, change, message):
    with pytest.raises(FastgenError) as caught:
        export(tmp_path / "pets", **{**SMALL, **change}, say=quiet)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options, users",
    [
        ({"shots": 5}, '1, its default, with split "balanced"; only "few-shot"'),
        ({"split": "few-shot", "per_class": 5}, '"balanced" and "long-tail" and "confounded"'),
        ({"imbalance": 50.0}, 'only "long-tail"'),
        ({"split": "long-tail", "confounding": 0.5}, 'only "confounded"'),
    ],
)
def test_an_argument_without_effect_is_refused(tmp_path, options, users):
    with pytest.raises(FastgenError) as caught:
        export(tmp_path / "pets", **options, say=quiet)
    assert users in str(caught.value)


def test_all_bad_arguments_are_listed_at_once(tmp_path):
    with pytest.raises(FastgenError) as caught:
        export(tmp_path / "pets", classes=["x", "y"], split="z", size=0, seed=-1, say=quiet)
    lines = str(caught.value).splitlines()
    assert [line.split("'")[1] for line in lines] == ["classes", "split", "seed", "size"]
    assert all(a != b for a, b in pairwise(lines))
    for name in (*OXFORD_PETS, *NOVEL_PETS):
        assert name in lines[0]
