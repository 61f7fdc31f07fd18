"""Curves of several measures over one variable, a panel for each measure, with intervals where there are some."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastgen.evaluate.histogram import STYLE

PANEL = (3.2, 3.4)
"""Width and height of a panel in inches."""


@dataclass(frozen=True, slots=True)
class Point:
    """A measured mean; `low` and `high` are its interval, None without one."""

    x: float
    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of one line, in the order of x; its label and colour are the same in every panel."""

    label: str
    colour: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Panel:
    """One measure; `unit` stands at its axis."""

    title: str
    curves: Sequence[Curve]
    unit: str = ""


def curves_figure(panels: Sequence[Panel], *, x_label: str, ticks: Sequence[float], columns: int) -> Figure:
    """Draws the panels in rows; what they share is explained once.

    Args:
        panels: at least one.
        x_label: what x is.
        ticks: values of x to name.
        columns: most panels in a row.

    Returns:
        the figure.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
        places = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, panel in zip(places, panels, strict=False):
            for curve in panel.curves:
                _draw(axes, curve)
            axes.set(title=panel.title, xlabel=x_label, ylabel=panel.unit)
            axes.set_xticks(ticks)
        for axes in places[len(panels) :]:
            axes.set_axis_off()
        places[0].legend()
    return figure


def _draw(axes: Axes, curve: Curve) -> None:
    band = [(p.x, p.low, p.high) for p in curve.points if p.low is not None and p.high is not None]
    x, low, high = ([one[i] for one in band] for i in range(3))
    if len(band) > 1:
        axes.fill_between(x, low, high, color=curve.colour, alpha=0.2, linewidth=0)
    elif band:  # an area needs two points
        axes.vlines(x, low, high, color=curve.colour, alpha=0.5, linewidth=3)
    at, means = [point.x for point in curve.points], [point.mean for point in curve.points]
    axes.plot(at, means, color=curve.colour, marker="o", label=curve.label)
