"""Accuracy of the two arms, seed by seed, and their paired difference."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastgen.evaluate.histogram import STYLE

COLOURS = ("#8a9099", "#2f6fb0", "#d9822b", "#4f9d69")
CHANGE, INK = "#2f6fb0", "#1c1e21"


def accuracy_plot(metrics: Mapping[str, Any], *, measure: str = "accuracy_macro") -> Figure:
    """Draws every seed as a point, the mean as a diamond with its 95 % t-interval, and the difference.

    Args:
        metrics: content of a metrics.json of `fastgen train`.
        measure: `accuracy_macro` or `accuracy_micro`.

    Returns:
        the figure; with one arm it has one panel.
    """
    difference = metrics.get("difference")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6 if difference else 5.2, 4.2), layout="constrained")
        ratios = [2.2, 1.0] if difference else [1.0]
        axes = figure.subplots(1, len(ratios), width_ratios=ratios, squeeze=False)[0]
        _arms(axes[0], metrics["arms"], measure)
        if difference:
            _difference(axes[1], difference[measure])
    return figure


def _beside(n: int) -> np.ndarray:
    """Small sideways steps that keep n points apart."""
    return np.linspace(-0.1, 0.1, n) if n > 1 else np.zeros(1)


def _arms(axes: Axes, arms: Mapping[str, Any], measure: str) -> None:
    values = {arm: 100 * np.array([s[measure] for s in content["seeds"]]) for arm, content in arms.items()}
    stacked = np.stack(list(values.values()))
    step = _beside(stacked.shape[1])
    for seed in range(stacked.shape[1]):
        x = np.arange(len(values)) + step[seed]
        axes.plot(x, stacked[:, seed], color="#8a9099", linewidth=0.9, alpha=0.6, zorder=1)
    for x, (arm, of_arm) in enumerate(values.items()):
        axes.scatter(x + step, of_arm, s=40, color=COLOURS[x % len(COLOURS)], edgecolors="white", zorder=3)
        side = -1 if x == 0 and len(values) > 1 else 1  # away from the lines between the arms
        _mean(axes, x + 0.24 * side, of_arm.mean(), arms[arm][measure]["ci95"], f"{of_arm.mean():.1f} %")
    axes.set_xticks(range(len(values)), [arm.replace("+", " + ") for arm in values])
    axes.set_xlim(-0.75 if len(values) > 1 else -0.5, len(values) - 0.25)
    axes.margins(y=0.12)
    axes.grid(axis="y", color="#e7e9ec")
    axes.set_axisbelow(True)
    axes.set_ylabel("test accuracy (%)")
    axes.set_title(f"{measure.rsplit('_', 1)[-1].capitalize()} accuracy, one point per seed")


def _mean(axes: Axes, x: float, mean: float, ci95: Sequence[float] | None, label: str) -> None:
    """A black diamond with its interval (fractions, drawn in percent), and its value beside it."""
    if ci95 is not None:
        axes.vlines(x, 100 * ci95[0], 100 * ci95[1], color=INK, linewidth=1.8)
    axes.plot([x], [mean], marker="D", markersize=7, color=INK)
    offset, align = ((10, 0), "left") if x > 0 else ((-10, 0), "right")
    axes.annotate(
        label,
        (x, mean),
        offset,
        textcoords="offset points",
        ha=align,
        va="center",
        fontweight="bold",
        size=11,
    )


def _difference(axes: Axes, difference: Mapping[str, Any]) -> None:
    points = 100 * np.array(difference["per_seed"])
    axes.axhline(0, color="#8a9099", linewidth=1.2, linestyle=(0, (4, 3)))
    axes.scatter(_beside(len(points)), points, s=40, color=CHANGE, edgecolors="white", zorder=3)
    _mean(axes, 0.24, 100 * difference["mean"], difference["ci95"], f"{100 * difference['mean']:+.1f}")
    axes.set_xlim(-0.4, 0.7)
    axes.margins(y=0.12)
    axes.grid(axis="y", color="#e7e9ec")
    axes.set_axisbelow(True)
    axes.set_xticks([])
    axes.set_ylabel("percentage points")
    axes.set_title("Difference")
