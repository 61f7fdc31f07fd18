"""Which references a class has: deterministic, independent by class, and never outside their folder."""

import os

import numpy as np
import pytest
from PIL import Image

from fastgen.errors import ReferenceImageError
from fastgen.petworld.attributes import NOVEL_PETS, OXFORD_PETS
from fastgen.petworld.render import render
from fastgen.plan.folders import match_names
from fastgen.plan.references import find_references, petworld_scene
from fastgen.records import Header, Ref

CLASSES = ("Basset Hound", "Bombay")


def header(classes=CLASSES, **defaults):
    return Header(name="t", classes=tuple(classes), defaults=defaults)


def make_images(folder, count, *, first=0):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture()
def pets(tmp_path):
    make_images(tmp_path / "pets" / "basset_hound", 6)
    make_images(tmp_path / "pets" / "bombay", 3, first=50)
    return tmp_path / "pets"


def ids(references, class_="Basset Hound"):
    return [reference.id for reference in references.of_class(class_)]


def test_folders_match_class_names_without_case_and_underscores(pets, tmp_path):
    found = find_references(pets, header(), bank_dir=tmp_path)
    assert found.classes == CLASSES
    assert ids(found) == [f"basset_hound/{i:02d}.png" for i in range(6)]
    one = found.of_class("Bombay")[0]
    assert (one.class_, one.label, one.key, one.path) == ("Bombay", 1, "50.png", "bombay/50.png")
    assert one.load().getpixel((0, 0)) == (50, 0, 0)
    assert one.scene() is None


def test_only_visible_images_count(pets, tmp_path):
    (pets / "bombay" / "notes.txt").write_text("x")
    (pets / "bombay" / "._50.png").write_bytes(b"x")
    (pets / "bombay" / "deeper.png").mkdir()
    (pets / "other class").mkdir()
    assert len(find_references(pets, header(), bank_dir=tmp_path).of_class("Bombay")) == 3


@pytest.mark.parametrize(
    "classes, names, message",
    [
        (
            ["Great Pyrenees"],
            ["great_pyrenees", "Great Pyrenees"],
            "class 'Great Pyrenees' fits 'Great Pyrenees' and",
        ),
        (["a b", "A B"], ["a_b"], "'a_b' fits the classes 'a b' and 'A B'"),
        (["cat"], ["dog", "cow"], "none has the name of a class; found: cow, dog; allowed: cat"),
        (["cat"], [], "found: nothing"),
    ],
)
def test_names_that_do_not_match_one_to_one_are_an_error(classes, names, message):
    with pytest.raises(ReferenceImageError) as error:
        match_names(classes, names, "folders")
    assert message in str(error.value)


def test_all_ambiguous_names_are_listed_at_once():
    with pytest.raises(ReferenceImageError) as error:
        match_names(["a b", "c d"], ["a_b", "a-b", "c_d", "C D"], "folders")
    assert "class 'a b' fits" in str(error.value) and "class 'c d' fits" in str(error.value)


def test_exact_names_tell_classes_apart_that_differ_in_case_only():
    assert match_names(["crane", "Crane"], ["Crane", "crane"], "x") == {"crane": "crane", "Crane": "Crane"}


def test_shots_are_nested_and_change_with_the_seed(pets, tmp_path):
    def few(shots, seed=0):
        return ids(find_references(pets, header(), bank_dir=tmp_path, shots=shots, seed=seed))

    assert few(4)[:2] == few(2) and len(set(few(4))) == 4
    assert len({tuple(few(3, seed)) for seed in range(8)}) > 3
    assert set(few(99)) == set(few(None)), "fewer images than shots: all of them"


def test_a_class_chooses_independently_of_other_classes_and_of_file_order(pets, tmp_path, monkeypatch):
    both = ids(find_references(pets, header(), bank_dir=tmp_path, shots=3))
    alone = ids(find_references(pets, header(["Basset Hound"]), bank_dir=tmp_path, shots=3))
    assert both == alone
    true_scandir = os.scandir

    class Reversed:
        def __init__(self, path):
            self.found = sorted(true_scandir(path), key=lambda e: e.name, reverse=True)

        def __enter__(self):
            return iter(self.found)

        def __exit__(self, *_):
            return None

    monkeypatch.setattr("fastgen.plan.folders.os.scandir", Reversed)
    assert ids(find_references(pets, header(), bank_dir=tmp_path, shots=3)) == both


def test_two_classes_do_not_choose_the_same_numbers(tmp_path):
    classes = [f"c{i}" for i in range(12)]
    for name in classes:
        make_images(tmp_path / "r" / name, 8)
    found = find_references(tmp_path / "r", header(classes), bank_dir=tmp_path, shots=1)
    assert len({found.of_class(name)[0].key for name in classes}) > 3


def test_the_headers_folder_and_shots_hold_unless_others_are_given(pets, tmp_path):
    found = find_references(None, header(refs="pets", shots=2), bank_dir=tmp_path)
    assert len(ids(found)) == 2
    assert len(ids(find_references(None, header(refs="pets", shots=2), bank_dir=tmp_path, shots=3))) == 3
    assert find_references("petworld", header(refs="pets"), bank_dir=tmp_path).of_class("Bombay")[0].file is None
    assert find_references(None, header(), bank_dir=tmp_path).is_empty


def test_a_row_may_name_a_file_in_the_references_or_beside_the_bank(pets, tmp_path):
    Image.new("RGB", (4, 4), (0, 9, 0)).save(tmp_path / "own.png")
    found = find_references(pets, header(), bank_dir=tmp_path)
    assert found.load(Ref(id="x", path="own.png")).getpixel((0, 0)) == (0, 9, 0)
    assert found.load("bombay/51.png").getpixel((0, 0)) == (51, 0, 0)
    for reference in found.of_class("Bombay"):
        again = found.find(reference.as_ref(), label=0)
        assert (again.origin, again.label, again.class_) == (reference.origin, 1, "Bombay")


@pytest.mark.parametrize("path", ["../secret.png", "a/../../secret.png", "link.png", "away/secret.png"])
def test_nothing_outside_the_folder_is_read(tmp_path, path):
    inside = make_images(tmp_path / "bank" / "refs" / "Bombay", 1).parent.parent
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (inside / "a").mkdir()
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    (inside / "away").symlink_to(tmp_path)
    found = find_references(None, header(refs="refs"), bank_dir=inside)
    with pytest.raises(ReferenceImageError, match="leads out of .*; allowed: paths and links that stay inside"):
        found.find(Ref(id="x", path=path))
    with pytest.raises(ReferenceImageError, match="leads out of"):
        found.find(str(tmp_path / "secret.png"))


def test_links_in_class_folders_may_not_lead_out_either(tmp_path):
    outside = make_images(tmp_path / "outside" / "Bombay", 2)
    refs = tmp_path / "refs"
    refs.mkdir()
    (refs / "Bombay").symlink_to(outside)
    with pytest.raises(ReferenceImageError, match="leads out of"):
        find_references(refs, header(), bank_dir=tmp_path).of_class("Bombay")
    make_images(refs / "basset hound", 1)
    (refs / "basset hound" / "a.png").symlink_to(outside / "00.png")
    with pytest.raises(ReferenceImageError, match="leads out of"):
        find_references(refs, header(), bank_dir=tmp_path).of_class("Basset Hound")


def test_links_that_stay_inside_are_fine_and_broken_ones_are_named(pets, tmp_path):
    (pets / "bombay" / "again.png").symlink_to(pets / "bombay" / "50.png")
    assert len(find_references(pets, header(), bank_dir=tmp_path).of_class("Bombay")) == 4
    (pets / "bombay" / "gone.png").symlink_to(pets / "bombay" / "nothing.png")
    with pytest.raises(ReferenceImageError, match="gone.png"):
        find_references(pets, header(), bank_dir=tmp_path).of_class("Bombay")
    linked = tmp_path / "linked"
    linked.symlink_to(pets)
    assert len(ids(find_references(linked, header(), bank_dir=tmp_path))) == 6, "--refs itself may be a link"


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda p: [f.unlink() for f in (p / "bombay").iterdir()],
            "class 'Bombay': no image in .*allowed: .png",
        ),
        (
            lambda p: (p / "bombay").rename(p / "bombai"),
            "class 'Bombay': none; allowed: a class among the folders",
        ),
        (lambda p: (p / "bombay" / "50.png").rename(p / "bombay" / "a\\b.png"), "rename the file"),
    ],
)
def test_what_is_wrong_with_a_class_is_said_when_it_is_asked_for(pets, tmp_path, change, message):
    change(pets)
    found = find_references(pets, header(), bank_dir=tmp_path)
    assert len(ids(found)) == 6
    with pytest.raises(ReferenceImageError, match=message):
        found.of_class("Bombay")


def test_wrong_arguments_are_refused(pets, tmp_path):
    with pytest.raises(ReferenceImageError, match="nowhere is no folder; give --refs DIR or --refs petworld"):
        find_references(tmp_path / "nowhere", header(), bank_dir=tmp_path)
    with pytest.raises(ReferenceImageError, match="shots: got 0; allowed: 1 or more"):
        find_references(pets, header(), bank_dir=tmp_path, shots=0)
    with pytest.raises(ReferenceImageError, match="seed of the references: got -1; allowed: 0 to"):
        find_references("petworld", header(), bank_dir=tmp_path, seed=-1)
    with pytest.raises(ReferenceImageError, match="no such file in"):
        find_references(pets, header(), bank_dir=tmp_path).find("x" * 400)
    with pytest.raises(ReferenceImageError, match="class 'Bombay': got no source; give --refs"):
        find_references(None, header(), bank_dir=tmp_path).of_class("Bombay")


def test_petworld_references_can_be_drawn_again_from_their_id_alone(tmp_path):
    found = find_references("petworld", header(["basset_hound", "Inkpaw"]), bank_dir=tmp_path, shots=3, seed=7)
    chosen = found.of_class("basset_hound")
    assert [r.id for r in chosen] == [f"petworld/Basset Hound/7-{k}" for k in range(3)]
    assert [r.key for r in chosen] == ["7-0", "7-1", "7-2"]
    elsewhere = find_references(None, header(["other"]), bank_dir=tmp_path)
    for reference in chosen:
        pixels = np.asarray(reference.load())
        assert pixels.shape == (64, 64, 3)
        assert reference.as_ref() == Ref(id=reference.id, label=0)
        np.testing.assert_array_equal(np.asarray(elsewhere.load(reference.as_ref())), pixels)
        scene = reference.scene()
        assert (scene.breed, scene.style, scene.realism) == ("Basset Hound", "photo", 0.5)
        np.testing.assert_array_equal(render(scene, 64), pixels)
    assert len({r.load().tobytes() for r in chosen}) == 3


def test_petworld_has_every_oxford_and_novel_breed_and_their_scenes_differ(tmp_path):
    breeds = (*OXFORD_PETS, *NOVEL_PETS)
    found = find_references("petworld", header(breeds), bank_dir=tmp_path)
    scenes = [found.of_class(breed)[0].scene() for breed in breeds]
    assert [scene.breed for scene in scenes] == list(breeds)
    assert len({(s.pose, s.background, s.light, s.side) for s in scenes}) > 25, "not one scene for all breeds"


@pytest.mark.parametrize(
    "reference_id",
    [
        "petworld/Beagle/0-03",
        "petworld/Beagle/-1-0",
        "petworld/Beagle/0",
        "petworld/Beagel/0-1",
        "petworld/Beagle/0-1 ",
        "petworld/Pretraining 00/0-0",
        "Petworld/Beagle/0-1",
        "petworld/Beagle/0-1/2",
    ],
)
def test_petworld_ids_are_parsed_strictly(reference_id, tmp_path):
    with pytest.raises(ReferenceImageError, match="allowed: petworld/<breed>/<seed>-<index>"):
        petworld_scene(reference_id)
    with pytest.raises(ReferenceImageError):
        find_references("petworld", header(), bank_dir=tmp_path).find(reference_id)


def test_a_breed_that_petworld_lacks_is_named_with_close_ones(tmp_path):
    found = find_references("petworld", header(["Beagel", "Bombay"]), bank_dir=tmp_path)
    with pytest.raises(ReferenceImageError, match="class 'Beagel': none; allowed: a class among the breeds"):
        found.of_class("Beagel")
