"""Rows are sorted by class and reference; failed rows and missing references are counted, never used."""

from PIL import Image

from fastgen.errors import ReferenceImageError
from fastgen.evaluate.class_images import RealImages, read_classes
from fastgen.shards.read import open_output
from tests.output_folder import make_row, write_output


def load(ref):
    if ref.id.startswith("gone"):
        raise ReferenceImageError("gone")
    return Image.new("L", (4, 4), 50)


def ref(name, label=None):
    return {"ref": {"id": name, "path": f"{name}.png"} | ({} if label is None else {"label": label})}


def read(folder, rows, loader=load):
    real = RealImages(loader)
    output = open_output(write_output(folder / "out", rows))
    return *read_classes(output, real), real


def test_good_rows_by_reference(tmp_path):
    rows = [
        make_row(0, class_="red", score=0.5, **ref("a")),
        make_row(1, class_="red", score=0.5, **ref("a")),
        make_row(2, class_="red", score=0.25, status=1, **ref("b")),
        make_row(3, class_="red", score=0.75),
        make_row(4, class_="blue", score=0.1, **ref("a")),
    ]
    (blue, red), counts, _ = read(tmp_path, rows)
    assert red.rows == {("a", "a.png"): [0, 1], None: [3]}
    assert (red.failed, red.images, blue.images) == (1, 3, 1)
    # the failed row's reference is a real image of the class all the same; its score is of no good image
    assert red.real == {("a", "a.png"), ("b", "b.png")}
    assert red.scores == {("a", "a.png"): 0.5, "row-3": 0.75}
    assert counts == {"without_reference": 1, "reference_missing": 0, "references": 2}


def test_a_reference_of_another_class_is_real_there(tmp_path):
    (blue, red), _, _ = read(tmp_path, [make_row(0, class_="red", **ref("donor", label=0))])
    assert red.rows == {("donor", "donor.png"): [0]}
    assert red.real == set() and blue.real == {("donor", "donor.png")}
    assert blue.images == 0


def test_missing_references_are_counted_and_named(tmp_path):
    rows = [make_row(0, **ref("gone-1")), make_row(1, **ref("gone-1")), make_row(2, **ref("a"))]
    (_, red), counts, real = read(tmp_path, rows)
    assert red.rows == {None: [0, 1], ("a", "a.png"): [2]}
    assert red.real == {("a", "a.png")}
    assert counts == {"without_reference": 0, "reference_missing": 2, "references": 1}
    assert real.missing == ["gone-1"]


def test_without_a_loader_every_reference_is_missing(tmp_path):
    (_, red), counts, real = read(tmp_path, [make_row(0, **ref("a")), make_row(1)], loader=None)
    assert red.rows == {None: [0, 1]} and not red.real
    assert counts == {"without_reference": 1, "reference_missing": 1, "references": 0}
    assert real.missing == ["a"]


def test_hash_is_of_the_pixels_and_each_reference_is_hashed_once():
    asked = []

    def loader(ref):
        asked.append(ref.id)
        return Image.new("RGB", (6, 4) if ref.id == "wide" else (4, 6), 7 if ref.id == "dark" else 90)

    real = RealImages(loader)
    hashes = [real.sha256((name, None)) for name in ("tall", "same", "wide", "dark", "tall")]
    assert hashes[0] == hashes[1] == hashes[4]
    assert len(set(hashes)) == 3
    assert asked == ["tall", "same", "wide", "dark"]
