"""`fastgen inspect`: what an output folder looks like, as a contact sheet, a figure and a table."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from fastgen.context import context_of_rows
from fastgen.errors import DataError, FastgenError
from fastgen.evaluate.contact_sheet import Card, contact_sheet
from fastgen.evaluate.histogram import BINS, histograms, png
from fastgen.files import atomic_write_bytes
from fastgen.records import Ref
from fastgen.shards.read import Output, open_output
from fastgen.shards.schema import GOOD, status_counts
from fastgen.shards.shard_file import ShardFile

LoadReference = Callable[[Ref], Image.Image]
MOST_CLASSES = 60
"""Classes that the table on the terminal shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSummary:
    """One class of an output folder.

    Attributes:
        name: of the class.
        good: number of good images.
        failed: number of rows with another status.
        mean_lambda: over the good images that have one, else NaN.
        mean_score: over the good images that have one, else NaN.
    """

    name: str
    good: int
    failed: int
    mean_lambda: float
    mean_score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What `inspect` found and where it put the pictures.

    Attributes:
        contact_sheet: PNG; None where no row is good.
        histograms: PNG; None where no row is good.
        classes: one entry per class of the bank, in its order.
        statuses: rows per status name.
    """

    contact_sheet: Path | None
    histograms: Path | None
    classes: tuple[ClassSummary, ...]
    statuses: dict[str, int]


@dataclass(frozen=True, slots=True)
class Columns:
    """Numbers of all rows, shard by shard: label, status (N,), lambda, score float64 (N,), bin name (N,)."""

    label: np.ndarray
    status: np.ndarray
    lambda_: np.ndarray
    score: np.ndarray
    bin: np.ndarray


def inspect(
    out: str | Path,
    *,
    to: str | Path | None = None,
    rows: int = 24,
    seed: int = 0,
    load_reference: LoadReference | None = None,
    console: Console | None = None,
) -> Inspection:
    """Writes contact_sheet.png and histograms.png, and prints a table of the classes.

    Where rows name the donors of their contexts (BOB), it also says whether class and context are independent.

    Args:
        out: an output folder of `fastgen run`, finished or not.
        to: folder for the pictures; None is `out`/inspect.
        rows: images on the contact sheet, spread evenly over the classes.
        seed: chooses them.
        load_reference: gives the image of a reference, such as `References.load`; without it the sheet shows
            the generated images alone. A reference that cannot be loaded leaves an empty tile.
        console: where the table goes; None is the terminal.

    Returns:
        the paths and the numbers of the table.

    Raises:
        FastgenError: if rows is not positive.
        OutputError: if there are no shards, or one is damaged.
        DataError: if no row is good (the table is printed all the same).
    """
    if rows < 1:
        raise FastgenError(f"rows is {rows}; it must be at least 1")
    output = open_output(out)
    columns = read_columns(output)
    summary, statuses = summarise(columns, output.classes), status_counts(columns.status)
    console = console or Console()
    _print(console, summary, statuses, title=str(out))
    _print_context(console, output)
    good = columns.status == GOOD
    if not good.any():
        raise DataError(f"{out}: none of its {len(good)} rows is good, so there is nothing to show")
    folder = Path(to) if to is not None else Path(out) / "inspect"
    cards = [_card(output, row, load_reference) for row in choose_rows(output, rows, seed)]
    title = f"{len(cards)} of {good.sum():,} images  ·  {len(output.classes)} classes  ·  {Path(out).name}"
    figure = histograms(columns.score[good], columns.lambda_[good], columns.bin[good])
    buffer = io.BytesIO()
    contact_sheet(cards, title=title).save(buffer, "PNG")
    return Inspection(
        contact_sheet=atomic_write_bytes(folder / "contact_sheet.png", buffer.getvalue()),
        histograms=atomic_write_bytes(folder / "histograms.png", png(figure)),
        classes=summary,
        statuses=statuses,
    )


def read_columns(output: Output) -> Columns:
    """Reads what the table and the figure need, one shard in memory at a time."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("label", "status", "lambda", "clip_score")}
    bins: list[str] = []
    for path in output.files:
        with ShardFile(path) as shard:
            for name, values in parts.items():
                values.append(shard.column(name))
            bins += [_bin(json.loads(text)) for text in shard.column("meta")]
    label, status, lambda_, score = (np.concatenate(values) for values in parts.values())
    return Columns(label, status, lambda_, score, np.array(bins, dtype="<U4"))


def _bin(row: dict[str, Any]) -> str:
    name = row.get("lambda_bin")
    return name if name in BINS else "none"


def summarise(columns: Columns, classes: tuple[str, ...]) -> tuple[ClassSummary, ...]:
    """Counts and means of every class, in label order."""
    found = []
    for label, name in enumerate(classes):
        mine = columns.label == label
        good = mine & (columns.status == GOOD)
        found.append(
            ClassSummary(
                name=name,
                good=int(good.sum()),
                failed=int((mine & ~good).sum()),
                mean_lambda=_mean(columns.lambda_[good]),
                mean_score=_mean(columns.score[good]),
            )
        )
    return tuple(found)


def _mean(values: np.ndarray) -> float:
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else float("nan")


def choose_rows(output: Output, count: int, seed: int) -> list[int]:
    """Row numbers of good images: class after class takes its turn, within a class at random.

    Args:
        output: an opened output folder.
        count: how many; fewer where there are not so many.
        seed: of the random choice.

    Returns:
        numbers sorted by class and, within a class, in plan order.
    """
    rng = np.random.default_rng(seed)
    good = rng.permutation(output.good)
    labels = output.labels[good]
    turn = np.zeros(len(good), np.int64)
    for label in np.unique(labels):
        mine = labels == label
        turn[mine] = np.arange(mine.sum())
    first = good[np.argsort(turn, kind="stable")[:count]]
    return sorted((int(row) for row in first), key=lambda row: (int(output.labels[row]), row))


def _card(output: Output, number: int, load_reference: LoadReference | None) -> Card:
    row = output[number]
    return Card(
        image=Image.fromarray(output.image(number)),
        reference=_reference(row.get("ref"), load_reference),
        class_=row["class"],
        prompt=row["prompt"],
        lambda_=row.get("lambda"),
        score=row.get("score"),
        bin=row.get("lambda_bin"),
    )


def _reference(ref: dict[str, Any] | None, load_reference: LoadReference | None) -> Image.Image | None:
    if ref is None or load_reference is None:
        return None
    try:
        return load_reference(Ref(id=ref["id"], path=ref.get("path"), label=ref.get("label")))
    except FastgenError:  # the reference's folder has changed since: the sheet shows a gap
        return None


def _print(
    console: Console, summary: tuple[ClassSummary, ...], statuses: dict[str, int], *, title: str
) -> None:
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("class")
    for name in ("images", "failed", "mean λ", "mean score"):
        table.add_column(name, justify="right")
    for entry in summary[:MOST_CLASSES]:
        table.add_row(
            entry.name, f"{entry.good:,}", f"{entry.failed:,}" if entry.failed else "·",
            _shown(entry.mean_lambda), _shown(entry.mean_score),
        )  # fmt: skip
    console.print(table)
    if len(summary) > MOST_CLASSES:
        console.print(f"... and {len(summary) - MOST_CLASSES} more classes")
    counted = ", ".join(f"{name} {count:,}" for name, count in statuses.items() if count)
    console.print(f"{sum(statuses.values()):,} rows: {counted}", highlight=False)


def _print_context(console: Console, output: Output) -> None:
    """Says whether class and context depend on each other, if the first row has a donor."""
    if (output[0].get("attrs") or {}).get("donor_id") is None:
        return
    names = {"context": "class and context", "donor": "class and class of the donor"}
    for what, found in context_of_rows(output[int(row)] for row in output.good).items():
        console.print(f"{names[what]} {found}", highlight=False)


def _shown(value: float) -> str:
    return "·" if np.isnan(value) else f"{value:.3f}"
