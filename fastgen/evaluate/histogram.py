"""One figure of scores and lambdas, coloured by the AGS bin that lambda was drawn from."""

import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

BINS = ("high", "low", "none")
"""AGS bins; `none` for rows whose lambda was not drawn by AGS."""

COLOURS = {"high": "#2f6fb0", "low": "#d9822b", "none": "#8a9099"}
LABELS = {"high": "well recognised (high bin)", "low": "badly recognised (low bin)", "none": "no AGS bin"}
STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a9099",
    "axes.labelcolor": "#1c1e21",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 11,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "xtick.color": "#4a4f57",
    "ytick.color": "#4a4f57",
    "legend.frameon": False,
}
MOST_POINTS = 5_000


def png(figure: Figure) -> bytes:
    """The figure as a PNG of 150 dots per inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def histograms(scores: np.ndarray, lambdas: np.ndarray, bins: np.ndarray) -> Figure:
    """Draws three panels: scores, lambdas, and lambda against score.

    Args:
        scores: CLIP score of every image's reference, float64 (N,), NaN for none.
        lambdas: float64 (N,), NaN for none.
        bins: a name out of `BINS` for every image, (N,).

    Returns:
        the figure, about 12 by 4 inches.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12.5, 3.9), layout="constrained")
        score_axes, lambda_axes, both = figure.subplots(1, 3)
        _stack(score_axes, scores, bins, title="Score of the reference", label="CLIP score")
        _stack(lambda_axes, lambdas, bins, title="Weight of the reference", label="λ")
        _points(both, scores, lambdas, bins)
        handles, labels = lambda_axes.get_legend_handles_labels()
        if not handles:
            handles, labels = score_axes.get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    return figure


def _limits(values: np.ndarray) -> tuple[float, float]:
    """0 to 1, wider where a value lies outside (a cosine below 0, a lambda above 1)."""
    return min(0.0, float(values.min())), max(1.0, float(values.max()))


def _stack(axes: Axes, values: np.ndarray, bins: np.ndarray, *, title: str, label: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(label)
    axes.set_ylabel("images")
    there = np.isfinite(values)
    if not there.any():
        _nothing(axes, f"no image has a {label}")
        return
    low, high = _limits(values[there])
    names = [name for name in BINS if (there & (bins == name)).any()]
    axes.hist(
        [values[there & (bins == name)] for name in names],
        bins=list(np.linspace(low, high, 41)),
        stacked=True,
        color=[COLOURS[name] for name in names],
        label=[LABELS[name] for name in names],
        edgecolor="white",
        linewidth=0.5,
    )
    axes.set_xlim(low, high)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.08)


def _points(axes: Axes, scores: np.ndarray, lambdas: np.ndarray, bins: np.ndarray) -> None:
    axes.set_title("λ against score")
    axes.set_xlabel("CLIP score")
    axes.set_ylabel("λ", rotation=0, labelpad=10)
    rows = np.flatnonzero(np.isfinite(scores) & np.isfinite(lambdas))
    if not len(rows):
        _nothing(axes, "no image has both")
        return
    if len(rows) > MOST_POINTS:
        rows = rows[np.linspace(0, len(rows) - 1, MOST_POINTS).astype(np.int64)]
    for name in BINS:
        of_bin = rows[bins[rows] == name]
        axes.scatter(scores[of_bin], lambdas[of_bin], s=12, color=COLOURS[name], alpha=0.5, linewidths=0)
    for limit, values in ((axes.set_xlim, scores[rows]), (axes.set_ylim, lambdas[rows])):
        low, high = _limits(values)
        limit(low - 0.03, high + 0.03)


def _nothing(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", color="#686d75", transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])
