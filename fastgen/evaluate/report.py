"""A report of one experiment as Markdown and as one HTML file that holds its pictures."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fastgen.errors import FastgenError
from fastgen.evaluate.accuracy_plot import accuracy_plot
from fastgen.evaluate.histogram import png
from fastgen.evaluate.lambda_strip import LambdaStrip, lambda_strips
from fastgen.evaluate.page import Grid, Part, Picture, Section, Text, markdown, web_page
from fastgen.files import atomic_write_bytes, atomic_write_text


def write_report(
    folder: str | Path,
    *,
    title: str = "fastgen report",
    metrics: Mapping[str, Any] | str | Path | None = None,
    contact_sheet: str | Path | None = None,
    histograms: str | Path | None = None,
    strips: Sequence[LambdaStrip] = (),
    facts: Mapping[str, str] | None = None,
    command: str = "",
) -> Path:
    """Writes report.md and report.html; sections without content are left out.

    Args:
        folder: where both go, with every picture beside them.
        title: heading.
        metrics: content of a metrics.json of `fastgen train`, or its path.
        contact_sheet: PNG of `inspect`; copied.
        histograms: PNG of `inspect`; copied.
        strips: references at several lambdas, each a row of one figure.
        facts: name -> value for the table at the top, such as images, seconds, engine.
        command: how to make the report again.

    Returns:
        path of report.html.

    Raises:
        FastgenError: if a file to show cannot be read.
        OutputError: if the folder cannot be written.
    """
    to = Path(folder)
    measured = json.loads(_read(Path(metrics))) if isinstance(metrics, str | Path) else metrics
    sections = []
    if measured is not None:
        sections.append(_accuracy(to, measured))
    if strips:
        sections.append(_strips(to, strips))
    for heading, name, source, text in (
        ("Generated images", "contact_sheet.png", contact_sheet, SHEET_TEXT),
        ("Scores and λ", "histograms.png", histograms, HISTOGRAM_TEXT),
    ):
        if source is not None:
            picture = Picture(atomic_write_bytes(to / name, _read(Path(source))), heading)
            sections.append(Section(heading, [Text(text), picture]))
    top: list[Part] = []
    if measured is not None:
        top.append(Text(verdict(measured), "lead"))
    if facts:
        top.append(Grid([("", ""), *((name, str(value)) for name, value in facts.items())]))
    if command:
        sections.append(Section("Make it again", [Text(f"`{command}`")]))
    sections.insert(0, Section("", top))
    atomic_write_text(to / "report.md", markdown(title, sections))
    return atomic_write_text(to / "report.html", web_page(title, sections))


SHEET_TEXT = (
    "Each generated image beside the real image it was made from. λ is the weight of that image against "
    "the prompt; the score says how surely CLIP recognises it as its class."
)
HISTOGRAM_TEXT = (
    "Adaptive guidance (AGS) gives a small λ to a well recognised reference, so that the prompt brings "
    "variety, and a large one to a badly recognised reference, so that the image stays near it."
)


def verdict(metrics: Mapping[str, Any]) -> str:
    """One sentence: what the synthetic images changed, and how sure that is."""
    arms, difference = metrics["arms"], metrics.get("difference")
    n = len(next(iter(arms.values()))["seeds"])
    seeds = "one seed" if n == 1 else f"{n} seeds"
    if not difference:
        mean = 100 * arms["real"]["accuracy_macro"]["mean"]
        return f"With real images alone the classifier reaches {mean:.1f} % macro accuracy ({seeds})."
    change = difference["accuracy_macro"]
    points = f"{100 * change['mean']:+.1f} points of macro accuracy"
    if change["ci95"] is None:
        return f"Synthetic images changed {points}; with {seeds} there is no telling how sure that is."
    low, high = (100 * end for end in change["ci95"])
    interval = f"95 % interval {low:+.1f} to {high:+.1f}, paired over {seeds}"
    if low > 0 or high < 0:
        return f"Synthetic images changed accuracy by {points} ({interval})."
    return f"Synthetic images made no clear difference: {points} ({interval})."


def _accuracy(to: Path, metrics: Mapping[str, Any]) -> Section:
    settings, backbone = metrics.get("settings", {}), metrics.get("backbone", {})
    n = len(next(iter(metrics["arms"].values()))["seeds"])
    name = backbone.get("name", "features")
    how = {"full": f"{name} trained in full", "lora": f"LoRA of {name}"}.get(
        settings.get("tune", "linear"), f"Linear probe on frozen {name}"
    )
    step = {
        "best_on_val": "the step that is best on the validation images",
        "best_on_eval": "the step that is best on these test images, which is too optimistic",
    }.get(metrics.get("select", "last"), "the last step")
    tested = "6400 test images drawn again" if settings.get("eval") == "resample6400" else "the whole test set"
    note = (
        f"{how}, {len(metrics['classes'])} classes, {settings.get('shots') or 'all'} real image(s) per class, "
        f"{settings.get('steps', '?')} steps; accuracy of {step} on {tested}. Intervals are 95 % t-intervals of the "
        "mean over seeds; they do not cover the choice of the test images."
    )
    plot = atomic_write_bytes(to / "accuracy.png", png(accuracy_plot(metrics)))
    return Section(
        f"Accuracy, {n} seed{'s' if n > 1 else ''}",
        [Grid(accuracy_rows(metrics)), Picture(plot, "Accuracy per seed"), Text(note, "note")],
    )


def accuracy_rows(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The accuracy table in percent, head first: mean, spread and interval per arm, then the difference."""
    rows: list[tuple[str, ...]] = [
        ("training images", "macro accuracy", "std", "95 % interval", "micro accuracy")
    ]
    for arm, content in metrics["arms"].items():
        rows.append(_accuracy_row(arm.replace("+", " + "), content, sign=""))
    if metrics.get("difference"):
        rows.append(_accuracy_row("difference (points)", metrics["difference"], sign="+"))
    return rows


def accuracy_table(metrics: Mapping[str, Any], *, console: Console | None = None) -> None:
    """Prints the accuracy table and the verdict.

    Args:
        metrics: content of metrics.json.
        console: where to; None is the terminal.
    """
    head, *rows = accuracy_rows(metrics)
    table = Table(header_style="bold")
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console = console or Console()
    console.print(table)
    console.print(verdict(metrics), highlight=False)


def _accuracy_row(name: str, content: Mapping[str, Any], *, sign: str) -> tuple[str, ...]:
    macro, micro = content["accuracy_macro"], content["accuracy_micro"]
    ends = "–" if macro["ci95"] is None else " to ".join(f"{100 * end:{sign}.1f}" for end in macro["ci95"])
    std = "–" if macro["std"] is None else f"{100 * macro['std']:.1f}"
    return name, f"{100 * macro['mean']:{sign}.1f}", std, ends, f"{100 * micro['mean']:{sign}.1f}"


def _strips(to: Path, strips: Sequence[LambdaStrip]) -> Section:
    buffer = io.BytesIO()
    lambda_strips(strips).save(buffer, "PNG")
    path = atomic_write_bytes(to / "lambda_strip.png", buffer.getvalue())
    text = (
        "One reference, one prompt and one seed; only λ grows, from the prompt alone towards the reference."
    )
    return Section("What λ does", [Text(text), Picture(path, "The same reference at growing λ")])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FastgenError(f"{path}: cannot be read for the report ({error.strerror or error})") from error
