"""Means are over classes (or images), never over the pairs of all classes together; what is missing is null."""

import io

import pytest
from rich.console import Console

from fastgen.evaluate.class_images import ClassImages
from fastgen.evaluate.diversity import ClassDiversity
from fastgen.evaluate.diversity_report import metric_entries, notes_of, print_report, score_entry

CLASSES = ("blue", "red", "grey")


def found():
    """Blue has 4 images and 2 real ones, red 2 and 1, grey nothing."""
    return [
        ClassDiversity(images=4, real=2, ref=(0.1, 0.1, 0.1, 0.1), class_real=0.2, intra=0.9),
        ClassDiversity(images=2, real=1, ref=(0.4, 0.7), class_real=0.6, intra=0.1),
        ClassDiversity(images=0, real=0, ref=(), class_real=None, intra=None),
    ]


def test_classes_of_unequal_size_count_once_each():
    metrics = metric_entries("m", CLASSES, found())
    assert metrics["m_intra"]["mean"] == pytest.approx(0.5)  # over the 6 + 1 pairs it would be 0.79
    assert metrics["m_class_real"]["mean"] == pytest.approx(0.4)  # over the 8 + 2 pairs it would be 0.28
    assert metrics["m_intra"]["mean_over"] == metrics["m_class_real"]["mean_over"] == "classes"


def test_ref_is_a_mean_over_images():
    ref = metric_entries("m", CLASSES, found())["m_ref"]
    assert ref["mean"] == pytest.approx(1.5 / 6)  # over the two classes it would be 0.325
    assert ref["mean_over"] == "images"
    assert ref["per_class"]["red"] == {"mean": pytest.approx(0.55), "pairs": 2}


def test_numbers_of_pairs_and_classes():
    metrics = metric_entries("m", CLASSES, found())
    assert [metrics[f"m_{name}"]["pairs"] for name in ("ref", "class_real", "intra")] == [6, 10, 7]
    assert [metrics[f"m_{name}"]["classes"] for name in ("ref", "class_real", "intra")] == [2, 2, 2]
    for metric in metrics.values():
        assert metric["per_class"]["grey"] == {"mean": None, "pairs": 0}


def test_nothing_to_compare_is_null():
    metrics = metric_entries("m", CLASSES[2:], found()[2:])
    assert {metric["mean"] for metric in metrics.values()} == {None}


def test_scores_count_every_reference_once():
    classes = [
        ClassImages("blue", scores={"a": 0.91, "b": 0.99}),
        ClassImages("red", scores={"c": 0.02}),
        ClassImages("grey"),
    ]
    scores = score_entry(classes)
    assert scores["references"] == 3 and scores["mean"] == pytest.approx(0.64)
    assert len(scores["edges"]) == 21 and scores["edges"][0] == 0 and scores["edges"][-1] == 1
    assert (scores["counts"][0], scores["counts"][18], scores["counts"][19]) == (1, 1, 1)
    assert scores["per_class"]["blue"]["counts"][18:] == [1, 1]
    assert scores["per_class"]["grey"]["mean"] is None


def test_cosines_below_zero_widen_the_bins():
    scores = score_entry([ClassImages("blue", scores={"a": -0.2, "b": 1.0})])
    assert scores["edges"][0] == pytest.approx(-0.2)
    assert sum(scores["counts"]) == 2


def test_without_scores_there_is_no_mean():
    scores = score_entry([ClassImages("blue")])
    assert scores["mean"] is None and sum(scores["counts"]) == 0


def report(**counts):
    classes = {"blue": (4, 1, 2), "red": (1, 0, 0), "grey": (0, 2, 0)}
    base = {"rows": 8, "images": 5, "without_reference": 0, "reference_missing": 0}
    made = {
        "counts": base | counts,
        "classes": {
            name: {"images": images, "failed": failed, "references": real}
            for name, (images, failed, real) in classes.items()
        },
        "missing_references": ["x/1.png"],
        "metrics": metric_entries("clip_i", CLASSES, found()) | metric_entries("resnet_distance", CLASSES, found()),
        "scores": score_entry([ClassImages(name) for name in CLASSES]),
    }
    return made | {"notes": notes_of(made)}


def test_notes_say_what_is_left_out():
    notes = "\n".join(report(without_reference=1, reference_missing=2)["notes"])
    assert "3 of 8 rows failed and are left out" in notes
    assert "2 of 3 classes have fewer than two images and no _intra" in notes
    assert "2 images have a reference that was not found (x/1.png, ...)" in notes
    assert "1 images were made without a reference" in notes
    assert "1 classes have images but no real image and no _class_real" in notes
    assert not any("not found" in note for note in report()["notes"])


def test_tables_fit_a_narrow_terminal():
    stream = io.StringIO()
    print_report(report(), title="out", console=Console(file=stream, width=80))
    text = stream.getvalue()
    assert "…" not in text
    (red,) = [line for line in text.splitlines() if line.startswith("red")]
    assert red.split() == ["red", "1", "·", "·", "0.550", "0.600", "0.100", "0.550", "0.600", "0.100"]
    assert "clip_i_class_real" in text and "note: 3 of 8 rows failed" in text
