"""`fastgen compare`: accuracy and diversity of several runs against lambda, prompts or shots (DALDA, Figs. 6 to 9)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from fastgen.errors import FastgenError
from fastgen.evaluate.curves import Curve, Panel, Point, curves_figure
from fastgen.evaluate.finished_run import ARM, AXES, FinishedRun, read_run
from fastgen.evaluate.histogram import png
from fastgen.files import atomic_write_bytes

COLOURS = ("#2f6fb0", "#d9822b", "#4f9d69", "#8b5fa8", "#c0504d", "#3f9ea6", "#7a6a53", "#b8860b")
GREY = "#8a9099"
PAIR_SETS = {"ref": "to the reference", "intra": "among images"}
NAMES = {
    "clip_i": "CLIP-I",
    "lpips_alex": "LPIPS (AlexNet)",
    "lpips_vgg": "LPIPS (VGG-16)",
    "resnet_distance": "Distance",
}
REAL = "real alone"

Values = dict[str, dict[str, dict[float, list[Point]]]]
"""Panel -> line -> x -> what each run there says."""


def compare(
    runs: Sequence[str | Path],
    *,
    against: str,
    out: str | Path,
    train: Sequence[str | Path] = (),
    console: Console | None = None,
) -> dict[str, list[Curve]]:
    """Draws one figure of several evaluated runs, a panel per measure, and prints its numbers.

    Where a run lies is read from its own plan: the lambda of its rows, or the most sentences or references of one of
    its classes. Runs that differ in something else (method, policy, engine, ...) are lines of their own. Several
    runs of a line in the same place are seeds: their mean is drawn with its 95 % t-interval. Of a single run the
    accuracy has the interval of its metrics.json, over the seeds of the training.

    Args:
        runs: output folders of `fastgen run`, each with `evaluate/report.json`.
        against: `lambda`, `prompts` or `shots`.
        out: the figure, a PNG.
        train: folders of `fastgen train --synthetic RUN`, one for each run in the same order; without them
            `RUN`/train counts where it is there.
        console: where the table goes; None is the terminal.

    Returns:
        panel -> lines.

    Raises:
        FastgenError: a run is not evaluated, cannot be placed, is given twice, or was measured by other encoders.
    """
    if against not in AXES:
        raise FastgenError(f"against is {against!r}; it must be one of {', '.join(AXES)}")
    if not str(out).lower().endswith(".png"):
        raise FastgenError(f"out is {str(out)!r}; it must be the name of a picture, ending in .png")
    if train and len(train) != len(runs):
        raise FastgenError(f"got {len(train)} folders of trainings for {len(runs)} runs; give one for each, or none")
    folders: list[Path | None] = [Path(folder) for folder in train] or [None] * len(runs)
    found = [read_run(Path(run), folder) for run, folder in zip(runs, folders, strict=True)]
    _check(found, against)
    lines = _lines(found, against)
    colours = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(dict.fromkeys(lines))} | {REAL: GREY}
    curves = {
        panel: [Curve(label, colours[label], _points(label, of_line)) for label, of_line in of_panel.items()]
        for panel, of_panel in _values(found, lines, against).items()
    }
    panels = [Panel(name, of_panel, "%" if name == "Accuracy" else "") for name, of_panel in curves.items()]
    ticks = sorted({float(run.values[against] or 0) for run in found})
    figure = curves_figure(panels, x_label=AXES[against], ticks=ticks, columns=3 if len(panels) > 4 else 2)
    atomic_write_bytes(out, png(figure))
    _print(curves, against, console or Console())
    return curves


def _check(runs: Sequence[FinishedRun], against: str) -> None:
    """Refuses runs that cannot be drawn together."""
    if len(runs) < 2:
        raise FastgenError(f"got {len(runs)} run; give at least two to compare")
    advice = {
        "lambda": "its rows do not share one lambda; make runs with --policy NUMBER",
        "shots": "its rows have no references",
    }
    first: dict[str, FinishedRun] = {}
    for run in runs:
        if run.values[against] is None:
            raise FastgenError(f"{run.out}: has no place on the axis {against}: {advice[against]}")
        twin = first.setdefault(str(run.plan), run)
        if twin is not run:
            raise FastgenError(f"{run.out}: is the same run as {twin.out}; give each one once")
        encoders = [{name: about["sha256"] for name, about in r.report["encoders"].items()} for r in (runs[0], run)]
        if encoders[0] != encoders[1]:
            names = [", ".join(one) for one in encoders]
            other = "the same names, but other weights" if names[0] == names[1] else names[0]
            raise FastgenError(
                f"{run.out}: was measured by other encoders ({names[1]}) than {runs[0].out} ({other}); evaluate both "
                "with the same --clip and --lpips"
            )


def _lines(runs: Sequence[FinishedRun], against: str) -> list[str]:
    """The line that each run belongs to, called by what distinguishes it from the others."""
    facts = [run.facts(against) for run in runs]
    differing = [name for name in facts[0] if len({of_run[name] for of_run in facts}) > 1]
    labels = []
    for of_run in facts:
        parts = [f"{name} {of_run[name] or 'not set'}".removeprefix("method ") for name in differing]
        labels.append(", ".join(parts) or facts[0]["method"] or "synthetic")
    return labels


def _values(runs: Sequence[FinishedRun], lines: Sequence[str], against: str) -> Values:
    """What every run says, accuracy first; the line of the real images alone is its last."""
    found: Values = {}

    def add(panel: str, line: str, point: Point) -> None:
        found.setdefault(panel, {}).setdefault(line, defaultdict(list))[point.x].append(point)

    places = [float(run.values[against] or 0) for run in runs]
    trained = [(run.metrics["arms"], line, x) for run, line, x in zip(runs, lines, places, strict=True) if run.metrics]
    for arms, line, x in trained:
        add("Accuracy", line, _accuracy(x, arms[ARM]))
    for arms, _, x in trained:  # without an interval: runs in one place share it
        add("Accuracy", REAL, Point(x, _accuracy(x, arms["real"]).mean))
    for run, line, x in zip(runs, lines, places, strict=True):
        for measure in run.report["encoders"]:
            for pair_set, shown in PAIR_SETS.items():
                mean = run.report["metrics"][f"{measure}_{pair_set}"]["mean"]
                if mean is not None:
                    add(f"{NAMES.get(measure, measure)} {shown}", line, Point(x, mean))
    if not found:
        raise FastgenError("no run has an accuracy or a pair of images to measure; see the notes in their report.json")
    return found


def _accuracy(x: float, arm: Mapping[str, Any]) -> Point:
    """Macro accuracy in percent, with the interval over the seeds of the training."""
    entry = arm["accuracy_macro"]
    low, high = [100 * end for end in entry["ci95"]] if entry["ci95"] else (None, None)
    return Point(x, 100 * entry["mean"], low, high)


def _points(line: str, of_line: Mapping[float, list[Point]]) -> list[Point]:
    """One point for each x; several runs there are seeds."""
    points = []
    for x, there in sorted(of_line.items()):
        if len(there) == 1:
            points.append(there[0])
            continue
        means = np.array([point.mean for point in there])
        if line == REAL:
            points.append(Point(x, float(means.mean())))
            continue
        half = float(stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / len(means) ** 0.5)
        points.append(Point(x, float(means.mean()), float(means.mean()) - half, float(means.mean()) + half))
    return points


def _print(curves: Mapping[str, Sequence[Curve]], against: str, console: Console) -> None:
    rows: dict[tuple[str, float], dict[str, str]] = {}
    for panel, of_panel in curves.items():
        for curve in of_panel:
            for point in curve.points:
                digits = 1 if panel == "Accuracy" else 3
                text = f"{point.mean:.{digits}f}"
                if point.low is not None:
                    text += f" [{point.low:.{digits}f}, {point.high:.{digits}f}]"
                rows.setdefault((curve.label, point.x), {})[panel] = text
    table = Table(header_style="bold")
    table.add_column("line")
    for name in (against, *("Accuracy, %" if panel == "Accuracy" else panel for panel in curves)):
        table.add_column(name, justify="right")
    for (label, x), of_row in sorted(rows.items(), key=lambda item: (item[0][0] == REAL, item[0])):
        table.add_row(label, f"{x:g}", *(of_row.get(panel, "·") for panel in curves))
    console.print(table)

