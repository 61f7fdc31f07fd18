"""Figures of `fastgen evaluate`: a measure class by class in its three pair sets, and scores of the references."""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fastgen.evaluate.diversity_report import PAIR_SETS
from fastgen.evaluate.histogram import STYLE

COLOURS = {"ref": "#d9822b", "class_real": "#4f9d69", "intra": "#2f6fb0"}
MARKERS = {"ref": "o", "class_real": "D", "intra": "s"}
LABELS = {
    "ref": "with its own reference (_ref)",
    "class_real": "with the real images of the class (_class_real)",
    "intra": "among generated images (_intra)",
}
TITLES = {
    "clip_i": "CLIP-I (lower: more diverse)",
    "lpips_alex": "LPIPS, AlexNet (higher: more diverse)",
    "lpips_vgg": "LPIPS, VGG-16 (higher: more diverse)",
    "resnet_distance": "Distance over the mini ResNet (higher: more diverse)",
}
MOST_CLASSES = 60
"""Classes in a figure; of more, those with the lowest and those with the highest means are drawn."""


def diversity_plot(measure: str, metrics: Mapping[str, Any]) -> Figure:
    """Draws one line per class with a mark per pair set, and the means over all classes as dashed lines.

    Args:
        measure: its name.
        metrics: of report.json.

    Returns:
        the figure; its height grows with the number of classes.
    """
    entries = {pair_set: metrics[f"{measure}_{pair_set}"] for pair_set in PAIR_SETS}
    means = {pair_set: _class_means(entry) for pair_set, entry in entries.items()}
    order = _order(means)
    shown = order if len(order) <= MOST_CLASSES else [*order[: MOST_CLASSES // 2], *order[-MOST_CLASSES // 2 :]]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 1.9 + 0.22 * max(4, len(shown))), layout="constrained")
        axes = figure.subplots()
        for pair_set, of_class in means.items():
            _marks(axes, pair_set, of_class, shown, entries[pair_set]["mean"])
        axes.set_yticks(range(len(shown)), shown)
        axes.set_ylim(-0.7, max(1, len(shown)) - 0.3)
        axes.invert_yaxis()
        axes.grid(axis="y", color="#e7e9ec")
        axes.set_axisbelow(True)
        axes.margins(x=0.04)
        hidden = len(order) - len(shown)
        axes.set_title(TITLES[measure] + (f", {hidden} classes in the middle not shown" if hidden else ""))
        axes.set_xlabel("mean per class; dashed: mean of all")
        if shown:
            figure.legend(loc="outside lower center", ncols=1, handletextpad=0.2)
        else:
            axes.text(0.5, 0.5, "no pairs to compare", ha="center", va="center", transform=axes.transAxes)
    return figure


def _class_means(entry: Mapping[str, Any]) -> dict[str, float]:
    """Classes that have pairs."""
    return {name: one["mean"] for name, one in entry["per_class"].items() if one["mean"] is not None}


def _order(means: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Classes with any mean, by the last pair set that they have, lowest first."""
    key = {name: value for pair_set in PAIR_SETS for name, value in means[pair_set].items()}
    return sorted(key, key=lambda name: key[name])


def _marks(axes: Axes, pair_set: str, means: Mapping[str, float], shown: list[str], mean: float | None) -> None:
    places = [place for place, name in enumerate(shown) if name in means]
    if not places or mean is None:
        return
    axes.scatter(
        [means[shown[place]] for place in places],
        places,
        s=64 if pair_set == "ref" else 26,
        marker=MARKERS[pair_set],
        # a ring around the others: with one real image per class, _ref and _class_real are the same number
        facecolors="none" if pair_set == "ref" else COLOURS[pair_set],
        edgecolors=COLOURS[pair_set],
        linewidths=1.5 if pair_set == "ref" else 0,
        label=f"{LABELS[pair_set]}: {mean:.3f}",
        zorder=3,
    )
    axes.axvline(mean, color=COLOURS[pair_set], linestyle=(0, (4, 3)), linewidth=1.1, zorder=2)


def score_plot(scores: Mapping[str, Any], *, title: str) -> Figure:
    """Draws the histogram of the references' scores, with their mean.

    Args:
        scores: of report.json.
        title: over the axes.

    Returns:
        the figure.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 3.9), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title)
        axes.set_xlabel("CLIP score: how surely the reference is recognised as its class")
        axes.set_ylabel("references")
        if scores["mean"] is None:
            axes.text(0.5, 0.5, "no reference has a score", ha="center", va="center", transform=axes.transAxes)
            return figure
        edges = np.array(scores["edges"])
        axes.bar(edges[:-1], scores["counts"], np.diff(edges), align="edge", color="#2f6fb0", edgecolor="white")
        axes.axvline(scores["mean"], color="#1c1e21", linestyle=(0, (4, 3)), label=f"mean {scores['mean']:.3f}")
        axes.set_xlim(edges[0], edges[-1])
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    return figure
