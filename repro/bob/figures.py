"""The figures: the cells of the ablation, accuracy over the length of fine-tuning, the long tail, samples."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from fastgen.evaluate.curves import Curve, Panel, Point, curves_figure
from fastgen.evaluate.histogram import STYLE, png
from fastgen.files import atomic_write_bytes
from fastgen.shards.read import open_output
from repro.bob.arms import ABLATION, MARGINALIZE, STEPS
from repro.bob.relations import BEST, DATADREAM
from repro.bob.results import Results
from repro.interval import Interval, bootstrap

COLOURS = {"plain": "#d9822b", "preserve": "#2f6fb0"}
LABELS = {"plain": "captions without context", "preserve": "captions with context"}
GROUPS = ("many", "medium", "few")
COLUMNS, CLASSES = 4, 6
"""Samples of a cell: so many images of so many classes."""


def write_figures(results: Results, folder: Path, *, work: Path) -> list[Path]:
    """Writes ablation.png, steps.png, long-tail.png and samples.png; those that were not measured are left out.

    Args:
        results: of all arms.
        folder: for the files.
        work: with the images of the first seed.
    """
    figures = {"ablation": _ablation(results)}
    if all(results.has(f"{name}-{STEPS[0]}") for name in (BEST, DATADREAM)):
        figures["steps"] = _steps(results)
    if results.has("long-tail"):
        figures["long-tail"] = _long_tail(results)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        atomic_write_bytes(paths[-1], png(figure))
    samples = folder / "samples.png"
    samples.parent.mkdir(parents=True, exist_ok=True)
    _samples(work / f"seed{results.seeds[0]}").quantize(256).save(samples, optimize=True)
    return [*paths, samples]


def _ablation(results: Results) -> Figure:
    """Bars of every cell: accuracy, and information about the class in the background."""
    panels = {
        "Accuracy of a classifier": lambda arm: results.accuracy(arm),
        "I(class; background), nats": lambda arm: results.information(arm, "background"),
        "Asked-for backgrounds shown": lambda arm: results.right(arm, "background"),
    }
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 3.4), layout="constrained")
        for axes, (title, values) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
            for offset, preserve in enumerate(COLOURS):
                bars = [_bar(values(f"{preserve}-{name}")) for name in MARGINALIZE]
                means = np.array([bar.mean for bar in bars])
                errors = np.array([[bar.mean - bar.low, bar.high - bar.mean] for bar in bars]).T
                axes.bar(
                    np.arange(len(bars)) + 0.38 * (offset - 0.5), means, 0.36, yerr=np.nan_to_num(errors), capsize=3,
                    color=COLOURS[preserve], label=LABELS[preserve],
                )  # fmt: skip
            axes.set_xticks(range(len(MARGINALIZE)), MARGINALIZE)
            axes.set(title=title, xlabel="donors of the context", xlim=(-0.5, len(MARGINALIZE) - 0.5))
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _bar(values: np.ndarray) -> Interval:
    """No bar where nothing was asked for."""
    return Interval(np.nan, np.nan, np.nan) if np.isnan(values).all() else bootstrap(values)


def _steps(results: Results) -> Figure:
    curves = []
    for title, name, colour in (("DataDream", DATADREAM, COLOURS["plain"]), ("BOB", BEST, COLOURS["preserve"])):
        found = [bootstrap(results.accuracy(name if s == STEPS[-1] else f"{name}-{s}")) for s in STEPS]
        points = [Point(at, one.mean, one.low, one.high) for at, one in zip(STEPS, found, strict=True)]
        curves.append(Curve(title, colour, points))
    real = float(results.accuracy(BEST, "real").mean())
    curves.append(Curve("real alone", "#8a9099", [Point(at, real) for at in STEPS]))
    return curves_figure([Panel("Accuracy", curves)], x_label="steps of fine-tuning", ticks=STEPS, columns=1)


def _long_tail(results: Results) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.4), layout="constrained")
        axes = figure.subplots()
        for offset, (which, colour) in enumerate((("real", "#8a9099"), ("real+synthetic", COLOURS["preserve"]))):
            bars = [bootstrap(results.accuracy("long-tail", which, group)) for group in GROUPS]
            errors = np.array([[bar.mean - bar.low, bar.high - bar.mean] for bar in bars]).T
            axes.bar(
                np.arange(len(GROUPS)) + 0.38 * (offset - 0.5), [bar.mean for bar in bars], 0.36, yerr=errors,
                capsize=3, color=colour, label={"real": "real alone"}.get(which, "with BOB's images"),
            )  # fmt: skip
        axes.set_xticks(range(len(GROUPS)), GROUPS)
        axes.set(xlabel="classes by their real pictures", ylabel="accuracy", title="Long tail")
        axes.legend()
    return figure


def _samples(folder: Path) -> Image.Image:
    """The first images of the first classes, cell by cell: rows are classes, blocks are cells in the table's order."""
    blocks = [_block(folder / cell.name / "run") for cell in ABLATION]
    width, height = blocks[0].size
    gap, columns = 12, len(MARGINALIZE)
    size = (columns * (width + gap) - gap, 2 * (height + gap) - gap)
    sheet = Image.new("RGB", size, "white")
    for index, block in enumerate(blocks):
        sheet.paste(block, (index % columns * (width + gap), index // columns * (height + gap)))
    return sheet


def _block(run: Path) -> Image.Image:
    output = open_output(run)
    chosen = [np.flatnonzero(output.labels == label)[:COLUMNS] for label in range(CLASSES)]
    rows = [np.concatenate(list(output.images(numbers)), axis=1) for numbers in chosen]
    return Image.fromarray(np.concatenate(rows, axis=0))
