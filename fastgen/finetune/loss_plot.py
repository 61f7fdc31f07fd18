"""The loss of a fine-tuning against its steps."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastgen.files import atomic_write_bytes


def draw_loss(path: Path, curves: Mapping[str, Sequence[Mapping[str, Any]]], *, title: str) -> Path:
    """Draw curves of loss, smoothed over a twentieth of their steps; a single one over its raw values.

    Args:
        path: the PNG.
        curves: name -> lines of a log, with `step` and `loss`.
        title: above the plot.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, lines in curves.items():
        steps, losses = [line["step"] for line in lines], np.array([line["loss"] for line in lines])
        if len(curves) == 1:
            axes.plot(steps, losses, color="#c3cad3", linewidth=0.7)
        smooth = smoothed(losses)
        axes.plot(steps, smooth, linewidth=1.6, color="#2f6fb0" if len(curves) == 1 else None, label=name)
    axes.set(xlabel="step", ylabel="loss", title=title)
    axes.grid(color="#e7e9ec")
    if 1 < len(curves) <= 12:
        axes.legend(fontsize=8, ncols=2)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=100)
    return atomic_write_bytes(path, image.getvalue())


def smoothed(losses: np.ndarray) -> np.ndarray:
    """Running mean over the last twentieth of all steps (at least 10), as long as the losses."""
    window = max(10, len(losses) // 20)
    sums = np.cumsum(np.insert(losses, 0, 0.0))
    ends = np.arange(1, len(losses) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
