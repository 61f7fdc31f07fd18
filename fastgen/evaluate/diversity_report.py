"""report.json of `fastgen evaluate`: metrics over classes, scores of the references, and the same as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fastgen.evaluate.class_images import ClassImages
from fastgen.evaluate.diversity import ClassDiversity

REPORT_VERSION = 1
PAIR_SETS = ("ref", "class_real", "intra")
MEAN_OVER = {"ref": "images", "class_real": "classes", "intra": "classes"}
"""What a metric's mean is taken over (card, section 2.9)."""

SCORE_BINS = 20
MOST_CLASSES = 60
"""Classes that the table on the terminal shows."""


def metric_entries(measure: str, classes: Sequence[str], found: Sequence[ClassDiversity]) -> dict[str, dict[str, Any]]:
    """The three metrics of one measure.

    Args:
        measure: its name, with which the metrics begin.
        classes: names of all classes.
        found: what was measured, in the same order.

    Returns:
        `<measure>_ref`, `_class_real` and `_intra`, each with `mean` (None where nothing could be compared),
        `mean_over` (images, or classes that have pairs, each counting once whatever its size), `pairs`,
        `classes` (how many have pairs) and `per_class` (`mean`, `pairs`).
    """
    entries = {}
    for pair_set in PAIR_SETS:
        per_class = {name: _of_class(pair_set, one) for name, one in zip(classes, found, strict=True)}
        means = [entry["mean"] for entry in per_class.values() if entry["mean"] is not None]
        values = means if MEAN_OVER[pair_set] == "classes" else [value for one in found for value in one.ref]
        entries[f"{measure}_{pair_set}"] = {
            "mean": _mean(values),
            "mean_over": MEAN_OVER[pair_set],
            "pairs": sum(entry["pairs"] for entry in per_class.values()),
            "classes": len(means),
            "per_class": per_class,
        }
    return entries


def _of_class(pair_set: str, found: ClassDiversity) -> dict[str, Any]:
    if pair_set == "ref":
        return {"mean": _mean(found.ref), "pairs": len(found.ref)}
    if pair_set == "class_real":
        return {"mean": found.class_real, "pairs": found.images * found.real}
    return {"mean": found.intra, "pairs": found.images * (found.images - 1) // 2}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def score_entry(classes: Sequence[ClassImages]) -> dict[str, Any]:
    """How well CLIP recognises the references, each counted once (paper, Fig. 4).

    Args:
        classes: of the output folder.

    Returns:
        `references`, `mean` (None without any score), `edges` of the bins (0 to 1; wider for cosines below
        0), `counts` per bin, and `per_class` (`references`, `mean`, `counts`).
    """
    scores = {entry.name: list(entry.scores.values()) for entry in classes}
    everything = [score for of_class in scores.values() for score in of_class]
    edges = np.linspace(min(0.0, *everything, 0.0), max(1.0, *everything, 1.0), SCORE_BINS + 1)

    def summary(values: Sequence[float]) -> dict[str, Any]:
        counts = np.histogram(values, edges)[0].tolist()
        return {"references": len(values), "mean": _mean(values), "counts": counts}

    per_class = {name: summary(values) for name, values in scores.items()}
    return {**summary(everything), "edges": edges.tolist(), "per_class": per_class}


def notes_of(report: Mapping[str, Any]) -> list[str]:
    """What the reader of the numbers must know: what is left out, and why."""
    counts, classes = report["counts"], report["classes"]
    failed = counts["rows"] - counts["images"]
    few = sum(entry["images"] < 2 for entry in classes.values())
    without_real = sum(entry["images"] > 0 and not entry["references"] for entry in classes.values())
    notes = []
    if failed:
        notes.append(f"{failed} of {counts['rows']} rows failed and are left out")
    if few:
        notes.append(f"{few} of {len(classes)} classes have fewer than two images and no _intra")
    if counts["reference_missing"]:
        notes.append(
            f"{counts['reference_missing']} images have a reference that was not found "
            f"({report['missing_references'][0]}, ...) and no _ref; run this in the folder in which `fastgen "
            "run` was typed, with the references in their place"
        )
    if counts["without_reference"]:
        notes.append(f"{counts['without_reference']} images were made without a reference and have no _ref")
    if without_real:
        notes.append(f"{without_real} classes have images but no real image and no _class_real")
    return notes


def print_report(report: Mapping[str, Any], *, title: str, console: Console) -> None:
    """Prints the metrics, then the classes, then the notes.

    Args:
        report: content of report.json.
        title: over the first table.
        console: where to.
    """
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("metric")
    for name in ("mean", "mean over", "classes", "pairs"):
        table.add_column(name, justify="right")
    for name, metric in report["metrics"].items():
        table.add_row(name, _shown(metric["mean"]), metric["mean_over"], str(metric["classes"]), f"{metric['pairs']:,}")
    console.print(table)
    console.print()
    console.print(_class_table(report))
    console.print()
    if len(report["classes"]) > MOST_CLASSES:
        console.print(f"... and {len(report['classes']) - MOST_CLASSES} more classes in report.json")
    for note in report["notes"]:
        console.print(f"note: {note}", highlight=False)


def _class_table(report: Mapping[str, Any]) -> Table:
    """Narrow enough for a terminal of 80 characters."""
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("class", min_width=12)
    for name in ("images", "failed", "score", *map(_stacked, report["metrics"])):
        table.add_column(name, justify="right", no_wrap=True, min_width=max(map(len, [*name.split("\n"), "0.000"])))
    for name, entry in list(report["classes"].items())[:MOST_CLASSES]:
        means = [metric["per_class"][name]["mean"] for metric in report["metrics"].values()]
        score = report["scores"]["per_class"][name]["mean"]
        failed = f"{entry['failed']:,}" if entry["failed"] else "·"
        table.add_row(name, f"{entry['images']:,}", failed, *map(_shown, [score, *means]))
    return table


def _stacked(metric: str) -> str:
    """The name of a metric as a head of narrow lines."""
    pair_set = next(name for name in PAIR_SETS if metric.endswith(f"_{name}"))
    measure = metric.removesuffix(f"_{pair_set}").removesuffix("_distance")
    return "\n".join([*measure.replace("clip_i", "clip-i").split("_"), *pair_set.split("_")])


def _shown(value: float | None) -> str:
    return "·" if value is None else f"{value:.3f}"
