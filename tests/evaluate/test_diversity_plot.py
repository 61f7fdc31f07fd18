"""Figures show every class once, name both ends when there are too many, and survive nothing to draw."""

import io

import pytest
from PIL import Image

from fastgen.evaluate.class_images import ClassImages
from fastgen.evaluate.diversity import ClassDiversity
from fastgen.evaluate.diversity_plot import MOST_CLASSES, TITLES, diversity_plot, score_plot
from fastgen.evaluate.diversity_report import metric_entries, score_entry
from fastgen.evaluate.histogram import png


def metrics(count, *, measure="clip_i", images=3):
    names = [f"class {i:03d}" for i in range(count)]
    found = [
        ClassDiversity(
            images=images, real=1, ref=(0.5,), class_real=0.4, intra=(count - i) / count if images > 1 else None
        )
        for i in range(count)
    ]
    return metric_entries(measure, names, found)


def labels(figure):
    return [tick.get_text() for tick in figure.axes[0].get_yticklabels()]


@pytest.mark.parametrize("measure", TITLES)
def test_every_class_has_a_line_ordered_by_intra(measure):
    figure = diversity_plot(measure, metrics(5, measure=measure))
    assert labels(figure) == [f"class {i:03d}" for i in (4, 3, 2, 1, 0)]
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert len(texts) == 3 and "_intra): 0.600" in texts[2]
    with Image.open(io.BytesIO(png(figure))) as image:
        assert image.width > 1000


def test_of_too_many_classes_both_ends_are_shown():
    figure = diversity_plot("clip_i", metrics(MOST_CLASSES + 10))
    shown = labels(figure)
    assert len(shown) == MOST_CLASSES
    assert (shown[0], shown[-1]) == ("class 069", "class 000")
    assert "10 classes in the middle not shown" in figure.axes[0].get_title(loc="left")


def test_classes_without_intra_keep_their_other_marks():
    figure = diversity_plot("clip_i", metrics(3, images=1))
    assert len(labels(figure)) == 3
    assert len(figure.legends[0].get_texts()) == 2


def test_nothing_to_draw_says_so():
    nothing = metric_entries("clip_i", ["a"], [ClassDiversity(images=1, real=0, ref=(), class_real=None, intra=None)])
    figure = diversity_plot("clip_i", nothing)
    assert "no pairs to compare" in [text.get_text() for text in figure.axes[0].texts]
    figure = score_plot(score_entry([ClassImages("a")]), title="scores")
    assert "no reference has a score" in [text.get_text() for text in figure.axes[0].texts]


def test_scores_are_drawn_with_their_mean():
    figure = score_plot(score_entry([ClassImages("a", scores={"x": 0.2, "y": 0.6})]), title="scores")
    axes = figure.axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == 2
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["mean 0.400"]
