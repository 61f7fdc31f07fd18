"""`fastgen evaluate`: how diverse the images of an output folder are, and how close to their references."""

import json
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fastgen import __version__
from fastgen.errors import SHOWN
from fastgen.evaluate.against_real import real_sections
from fastgen.evaluate.class_images import ClassImages, LoadReference, RealImages, open_good, read_classes
from fastgen.evaluate.diversity import ClassDiversity, Diversity
from fastgen.evaluate.diversity_plot import diversity_plot, score_plot
from fastgen.evaluate.diversity_report import (
    REPORT_VERSION,
    metric_entries,
    notes_of,
    print_report,
    score_entry,
)
from fastgen.evaluate.histogram import png
from fastgen.evaluate.lpips import lpips_measure
from fastgen.evaluate.measure import Measure, clip_measure
from fastgen.evaluate.resnet_distance import resnet_measure
from fastgen.files import atomic_write_bytes, atomic_write_text
from fastgen.shards.read import Output
from fastgen.shards.schema import status_counts
from fastgen.shards.shard_file import ShardFile

PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "torchmetrics", "lpips", "pillow", "numpy")
LPIPS_SIDE, LPIPS_SMALL_SIDE = 512, 256
"""Square that LPIPS sees, in pixels: of images of 512 pixels and more, and of smaller ones (card, section 2.9)."""


def evaluate(
    out: str | Path,
    *,
    clip: str | Path | None = None,
    lpips: str | None = None,
    real: str | Path | None = None,
    captions: str | Path | None = None,
    probe: str | Path | None = None,
    features: str | None = None,
    fid_images: int | None = None,
    to: str | Path | None = None,
    load_reference: LoadReference | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Measures CLIP-I and a perceptual distance in the card's three pair sets; writes report.json and plots.

    Failed rows are left out and counted. What is measured of a class is kept in `to`/cache by the hash of its
    images, so that a second evaluation costs seconds.

    Args:
        out: an output folder of `fastgen run`, finished or not.
        clip: a folder of open_clip, or NAME=WEIGHTS, as `ScoringClip.load` takes it; None is the embedded
            model's scoring CLIP.
        lpips: `alex` or `vgg` (or NAME=FILE of torchvision's weights) measures LPIPS v0.1 on squares of 512
            pixels, of 256 for smaller images; None measures `resnet_distance`, LPIPS' formula over the
            embedded ResNet, which needs no download and is not LPIPS.
        real: folder with one folder of real images per class: adds FID per class.
        captions: backgrounds and poses of real images: adds the context probe, see `real_sections`.
        probe: folder of the captions' images; None takes `real`.
        features: of FID and probe: `mini-resnet`, `clip`, or `inception=FILE`; None: `mini-resnet` for FID, `clip`
            for the probe.
        fid_images: most images of each class and side that FID takes; None takes all.
        to: folder for the report, the plots and the cache; None is `out`/evaluate.
        load_reference: gives the image of a reference, such as `References.load`; without it `_ref` and
            `_class_real` are null.
        console: where the tables go; None is the terminal.

    Returns:
        the content of report.json.

    Raises:
        FastgenError: if lpips is neither alex nor vgg.
        ModelError: if the weights of an encoder are not at hand.
        OutputError: if there are no shards, or one is damaged.
        DataError: if no row is good.
    """
    output = open_good(out)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    measures = [clip_measure(clip, device=device), _perceptual(output, lpips, device)]
    folder = Path(to) if to is not None else Path(out) / "evaluate"
    references = RealImages(load_reference)
    classes, counts = read_classes(output, references)
    sections, notes = real_sections(
        output, real=real, captions=captions, probe=probe, features=features, fid_images=fid_images, clip=clip,
        device=device,
    )  # fmt: skip
    diversity = Diversity(output, output.column("image_sha256"), references, folder / "cache")
    metrics: dict[str, Any] = {}
    for measure in measures:
        metrics |= metric_entries(measure.name, output.classes, _measure(diversity, classes, measure))
    report = {
        "fastgen_report": REPORT_VERSION,
        **_about(output, measures),
        "counts": _counts(output, classes) | counts,
        "classes": {
            one.name: {"images": one.images, "failed": one.failed, "references": len(one.real)} for one in classes
        },
        "metrics": metrics,
        "scores": score_entry(classes),
        "missing_references": references.missing[:SHOWN],
        **sections,
    }
    report["notes"] = [*notes_of(report), *notes]
    atomic_write_text(folder / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    _plots(folder, report, measures, name=Path(out).name)
    print_report(report, title=str(out), console=console or Console())
    return report


def _perceptual(output: Output, lpips: str | None, device: str) -> Measure:
    if lpips is None:
        return resnet_measure(device=device)
    with ShardFile(output.files[0]) as shard:
        side = min(shard.image_type[1][1:3])
    return lpips_measure(lpips, side=LPIPS_SIDE if side >= LPIPS_SIDE else LPIPS_SMALL_SIDE, device=device)


def _measure(diversity: Diversity, classes: Sequence[ClassImages], measure: Measure) -> list[ClassDiversity]:
    """All classes, with a bar on a terminal and a line elsewhere."""
    bar = Progress(
        TextColumn(measure.name),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("images"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    total, started = sum(one.images for one in classes), time.monotonic()
    with bar:
        task = bar.add_task("", total=total)
        found = [diversity.measure(one, measure, lambda n: bar.advance(task, n)) for one in classes]
    print(f"{measure.name}: {total} images, {time.monotonic() - started:.1f} s", file=sys.stderr)
    return found


def _counts(output: Output, classes: Sequence[ClassImages]) -> dict[str, Any]:
    statuses = {name: count for name, count in status_counts(output.status).items() if count}
    return {"rows": len(output), "images": sum(one.images for one in classes), "statuses": statuses}


def _about(output: Output, measures: Sequence[Measure]) -> dict[str, Any]:
    """Where the numbers come from: shards, encoders, versions."""
    seen: dict[str, set[str]] = {"bank_sha256": set(), "engine_fingerprint": set()}
    for path in output.files:
        with ShardFile(path) as shard:
            for name, values in seen.items():
                values.add(shard.attributes[name])
    versions = {"fastgen": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "bank_sha256": sorted(seen["bank_sha256"]),
        "engine_fingerprints": sorted(seen["engine_fingerprint"]),
        "encoders": {measure.name: measure.about for measure in measures},
        "versions": versions,
    }


def _plots(folder: Path, report: dict[str, Any], measures: Sequence[Measure], *, name: str) -> None:
    for measure in measures:
        figure = diversity_plot(measure.name, report["metrics"])
        atomic_write_bytes(folder / f"{measure.name}.png", png(figure))
    scores = report["scores"]
    title = f"Scores of {scores['references']} references, {len(report['classes'])} classes, {name}"
    atomic_write_bytes(folder / "scores.png", png(score_plot(scores, title=title)))
