"""Class folders, good rows, and which real image a synthetic one is a child of."""

import numpy as np
import pytest
from PIL import Image

from fastgen.errors import DataError, FastgenError, ReferenceImageError
from fastgen.train.data import find_images, find_real, link, read_synthetic
from tests.output_folder import make_row, write_output


def make_folder(root, names=("Basset_Hound", "beagle"), count=3, start=0):
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(count):
            colour = (60 * label, start + i, 9)
            Image.new("RGB", (8, 8), colour).save(root / name / f"{i}.png")
    return root


def test_class_folders_are_listed_in_order(tmp_path):
    found = find_images(make_folder(tmp_path))
    assert found.classes == ("Basset_Hound", "beagle")
    assert found.paths[:2] == ("Basset_Hound/0.png", "Basset_Hound/1.png")
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert [image.getpixel((0, 0))[1] for image in found.images()] == [0, 1, 2, 0, 1, 2]


def test_test_folder_takes_the_labels_of_the_training_folder(tmp_path):
    make_folder(tmp_path / "train")
    make_folder(tmp_path / "test", names=("basset hound",), start=50)
    real, test = find_real(tmp_path, None)
    assert (len(real), len(test)) == (6, 3)
    assert test.labels.tolist() == [0, 0, 0]


def test_test_class_without_training_images_is_an_error(tmp_path):
    make_folder(tmp_path / "a")
    make_folder(tmp_path / "b", names=("pug",), start=50)
    with pytest.raises(FastgenError, match="class 'pug' has no training images.*Basset_Hound, beagle"):
        find_real(tmp_path / "a", tmp_path / "b")


def test_the_same_file_on_both_sides_is_an_error(tmp_path):
    make_folder(tmp_path / "train")
    make_folder(tmp_path / "test", start=2)
    with pytest.raises(FastgenError, match="is also a training image"):
        find_real(tmp_path, None)


@pytest.mark.parametrize("make", [lambda p: None, lambda p: (p / "r" / "cat").mkdir(parents=True)])
def test_folder_without_images_is_an_error(tmp_path, make):
    make(tmp_path)
    with pytest.raises(FastgenError, match="class"):
        find_images(tmp_path / "r")


def test_damaged_image_names_its_file(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "beagle" / "1.png").write_bytes(b"no image")
    with pytest.raises(ReferenceImageError, match=r"beagle/1\.png: not a readable image"):
        list(find_images(tmp_path).images())


def test_transparent_parts_are_white(tmp_path):
    (tmp_path / "cat").mkdir()
    Image.new("RGBA", (4, 4), (200, 0, 0, 0)).save(tmp_path / "cat" / "a.png")
    assert next(find_images(tmp_path).images()).getpixel((0, 0)) == (255, 255, 255)


def test_only_good_rows_of_known_classes_are_used(tmp_path):
    rows = [make_row(i, class_=("red", "blue")[i % 2], status=(0, 0, 0, 2)[i % 4]) for i in range(12)]
    images, counts = read_synthetic(write_output(tmp_path, rows, per_shard=5), ["Red"])
    assert images.rows.tolist() == [0, 2, 4, 6, 8, 10]
    assert set(images.classes) == {"red"}
    assert counts == {"statuses": {"good": 9, "flat": 3}, "other_class": 3}
    assert [np.asarray(image)[0, 0, 0] for image in images.images()] == [0, 80, 160, 240, 64, 144]


def test_no_good_row_is_wrong_data(tmp_path):
    write_output(tmp_path / "bad", [make_row(0, status=1)])
    with pytest.raises(DataError, match="none of its 1 rows is good .*non_finite"):
        read_synthetic(tmp_path / "bad", ["red"])
    write_output(tmp_path / "other", [make_row(0)])
    with pytest.raises(DataError, match="no good row has one of the classes cat"):
        read_synthetic(tmp_path / "other", ["cat"])


PATHS = ("Basset_Hound/0.png", "beagle/0.png", "beagle/7-1.png")


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("Basset_Hound/0.png", 0),
        ("basset hound/0", 0),
        ("petworld/Beagle/7-1", 2),
        ("refs/beagle/0.png", 1),
        ("7-1", 2),
        ("7-1.png", 2),
        ("0", -1),  # two classes have it
        ("pug/7-1", -1),  # another class
        ("", -1),
    ],
)
def test_reference_ids_find_their_file(ref, expected):
    assert link([ref], PATHS).tolist() == [expected]
