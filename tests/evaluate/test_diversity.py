"""Every pair set by hand on images that are points on a line: an image's vector is its grey value."""

import json

import numpy as np
import pytest
from PIL import Image

from fastgen.evaluate.class_images import RealImages, read_classes
from fastgen.evaluate.diversity import Diversity
from fastgen.evaluate.measure import Measure
from fastgen.shards.read import open_output
from tests.output_folder import make_row, write_output

REAL = {"a": 0, "b": 10, "donor": 100}


class Grey:
    """A distance measure that counts the images it embeds."""

    def __init__(self, batch=64, sha256="w"):
        self.embedded = 0
        self.measure = Measure(name="grey", kind="distance", sha256=sha256, embed=self.embed, batch=batch)

    def embed(self, images):
        assert 1 <= len(images) <= self.measure.batch
        self.embedded += len(images)
        return np.array([[np.asarray(image, np.float32)[0, 0, 0]] for image in images])


def load(ref):
    return Image.new("RGB", (4, 4), (REAL[ref.id],) * 3)


def row(index, grey, ref=None, **more):
    extra = {"ref": {"id": ref} | ({"label": 0} if ref == "donor" else {})} if ref else {}
    return make_row(index, image=np.full((16, 16, 3), grey, np.uint8), **extra, **more)


def diversity(folder, rows, loader=load):
    output = open_output(write_output(folder / "out", rows, per_shard=2))
    real = RealImages(loader)
    (_, red), _ = read_classes(output, real)
    return Diversity(output, output.column("image_sha256"), real, folder / "cache"), red


THREE = (row(0, 1, "a"), row(1, 3, "a"), row(2, 12, "b"))


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_the_three_pair_sets_by_hand(tmp_path, batch):
    measured, red = diversity(tmp_path, THREE)
    found = measured.measure(red, Grey(batch).measure)
    assert found.ref == (1, 9, 4)
    # against 0: 1, 9, 144; against 10: 81, 49, 4
    assert found.class_real == pytest.approx(288 / 6)
    # 1-3: 4, 1-12: 121, 3-12: 81
    assert found.intra == pytest.approx(206 / 3)
    assert (found.images, found.real) == (3, 2)


def test_a_single_image_has_no_intra(tmp_path):
    measured, red = diversity(tmp_path, [row(0, 4, "a")])
    found = measured.measure(red, Grey().measure)
    assert found.intra is None
    assert found.ref == (16,) and found.class_real == pytest.approx(16)


def test_no_image_at_all_has_nothing(tmp_path):
    measured, red = diversity(tmp_path, [row(0, 4, "a", status=1)])
    found = measured.measure(red, Grey().measure)
    assert (found.ref, found.class_real, found.intra) == ((), None, None)
    assert (found.images, found.real) == (0, 1)


def test_failed_rows_are_left_out(tmp_path):
    measured, red = diversity(tmp_path, [*THREE, row(3, 200, "a", status=2)])
    found = measured.measure(red, Grey().measure)
    assert found.intra == pytest.approx(206 / 3) and len(found.ref) == 3


def test_images_without_reference_count_for_the_other_sets_only(tmp_path):
    measured, red = diversity(tmp_path, [row(0, 1, "a"), row(1, 5)])
    found = measured.measure(red, Grey(batch=1).measure)
    assert found.ref == (1,)
    assert found.class_real == pytest.approx((1 + 25) / 2)
    assert found.intra == pytest.approx(16)


def test_a_donor_of_another_class_is_no_real_image_of_this_one(tmp_path):
    measured, red = diversity(tmp_path, [row(0, 1, "a"), row(1, 98, "donor")])
    found = measured.measure(red, Grey().measure)
    assert sorted(found.ref) == [1, 4]
    assert found.real == 1
    assert found.class_real == pytest.approx((1 + 98**2) / 2)


def test_missing_references_leave_intra(tmp_path):
    measured, red = diversity(tmp_path, THREE, loader=None)
    found = measured.measure(red, Grey().measure)
    assert (found.ref, found.class_real) == ((), None)
    assert found.intra == pytest.approx(206 / 3)


def test_every_image_is_embedded_once_and_never_again(tmp_path):
    measured, red = diversity(tmp_path, THREE)
    grey, told = Grey(), []
    first = measured.measure(red, grey.measure, told.append)
    assert grey.embedded == 5 and sum(told) == 3
    told.clear()
    assert measured.measure(red, grey.measure, told.append) == first
    assert grey.embedded == 5 and sum(told) == 3
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".json"]


def test_what_is_kept_belongs_to_these_images_references_and_weights(tmp_path, monkeypatch):
    measured, red = diversity(tmp_path, THREE)
    measured.measure(red, Grey().measure)
    other = Grey(sha256="other")
    measured.measure(red, other.measure)
    assert other.embedded == 5

    changed = Grey()
    again, red = diversity(tmp_path / "two", [*THREE[:2], row(2, 13, "b")])
    Diversity(again.output, again.hashes, again.real, tmp_path / "cache").measure(red, changed.measure)
    assert changed.embedded == 5

    monkeypatch.setitem(REAL, "b", 11)
    moved = Grey()
    again, red = diversity(tmp_path / "three", THREE)
    found = Diversity(again.output, again.hashes, again.real, tmp_path / "cache").measure(red, moved.measure)
    assert moved.embedded == 5 and found.ref == (1, 9, 1)


def test_the_same_images_with_other_parents_are_another_measurement(tmp_path):
    measured, red = diversity(tmp_path, THREE)
    measured.measure(red, Grey().measure)
    again, red = diversity(tmp_path / "two", [row(0, 1, "a"), row(1, 3, "b"), row(2, 12, "b")])
    found = Diversity(again.output, again.hashes, again.real, tmp_path / "cache").measure(red, Grey().measure)
    assert found.ref == (1, 49, 4)


def test_a_donor_is_not_taken_for_the_real_image_it_was_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setitem(REAL, "a", REAL["donor"])
    measured, red = diversity(tmp_path, [row(0, 1, "a")])
    assert measured.measure(red, Grey().measure).real == 1
    again, red = diversity(tmp_path / "two", [row(0, 1, "donor")])
    found = Diversity(again.output, again.hashes, again.real, tmp_path / "cache").measure(red, Grey().measure)
    assert (found.real, found.class_real) == (0, None)


def test_kept_numbers_are_exact(tmp_path):
    measured, red = diversity(tmp_path, THREE)
    found = measured.measure(red, Grey().measure)
    (path,) = (tmp_path / "cache").iterdir()
    assert json.loads(path.read_text())["intra"] == found.intra
