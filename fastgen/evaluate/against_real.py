"""What needs a folder of real images: FID per class, and the context probe; two sections of report.json."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastgen.bank.captions import ATTRIBUTES, read_captions
from fastgen.errors import FastgenError
from fastgen.evaluate.class_fid import fid_entry, fid_notes
from fastgen.evaluate.context_probe import context_entry, context_notes
from fastgen.evaluate.features import BATCH, Features
from fastgen.plan.folders import inside, list_folders, list_images, match_names
from fastgen.plan.pictures import open_picture
from fastgen.shards.read import Output


def real_sections(
    output: Output,
    features: Features | None,
    *,
    real: str | Path | None,
    captions: str | Path | None,
    probe: str | Path | None,
    attributes: Sequence[str] = ATTRIBUTES,
    fid_images: int | None,
) -> tuple[dict[str, Any], list[str]]:
    """Measure what the given folders allow.

    Args:
        output: an opened output folder with good rows.
        features: the feature extractor; None where nothing is asked for.
        real: real images, one folder per class, for FID; None: no FID.
        captions: attributes of the images in `probe`, as `fastgen caption` and `fastgen petworld` write them; None:
            no context probe.
        probe: the images that the captions are about; None takes `real`. Their classes need not be those of the
            output; contexts that do not depend on the class make the best probe.
        attributes: of the captions.
        fid_images: generated and real images of each class that FID takes, the first ones; None takes all.

    Returns:
        The sections `fid` and `context` that were asked for, and notes.

    Raises:
        FastgenError: captions without images, or a folder that fits no class.
        BankError, DataError: the captions cannot be used.
    """
    if captions is not None and probe is None and real is None:
        raise FastgenError("captions: got no images for them; give their folder with --probe, or --real")
    if fid_images is not None and fid_images < 2:
        raise FastgenError(f"fid_images: got {fid_images}; allowed: 2 or more")
    sections: dict[str, Any] = {}
    notes: list[str] = []
    if features is None or (real is None and captions is None):
        return sections, notes
    generated = _embed(features, (Image.fromarray(output.image(int(row))) for row in output.good))
    labels = output.labels[output.good]
    if real is not None:
        files = _class_files(Path(real), output.classes)
        found = {name: _embed(features, map(open_picture, paths[:fid_images])) for name, paths in files.items()}
        mine = {name: generated[labels == label][:fid_images] for label, name in enumerate(output.classes)}
        mine = {name: rows for name, rows in mine.items() if len(rows)}
        sections["fid"] = {"features": features.name, **features.about, **fid_entry(output.classes, mine, found)}
        notes += fid_notes(sections["fid"])
    if captions is not None:
        lines = read_captions(captions, attributes=attributes)
        base = Path(probe or real or "").resolve()
        known = _embed(features, (open_picture(inside([base], line.file)) for line in lines))
        entry = context_entry(
            known,
            [line.attributes for line in lines],
            generated,
            classes=[output.classes[label] for label in labels],
            rows=[output[int(row)] for row in output.good],
        )
        sections["context"] = {"features": features.name, **features.about, "attributes": entry}
        notes += context_notes(entry)
    return sections, notes


def _class_files(folder: Path, classes: Sequence[str]) -> dict[str, list[Path]]:
    """The images of every class that has a folder."""
    if not folder.is_dir():
        raise FastgenError(f"real: {folder} is no folder; give one with a folder of images per class")
    names = list_folders(folder)
    if {"train", "test"} <= set(names):
        raise FastgenError(f"real: {folder} holds train and test; give one of them, such as {folder / 'train'}")
    base = folder.resolve()
    places = match_names(classes, names, f"folders in {folder}")
    found = {class_: list_images(base / place, base) for class_, place in places.items()}
    return {class_: files for class_, files in found.items() if files}


def _embed(features: Features, images: Iterator[Image.Image]) -> np.ndarray:
    """Vectors of many images, float32 (N, D), holding a batch of them in memory."""
    parts, batch = [], []
    for image in images:
        batch.append(image)
        if len(batch) == BATCH:
            parts.append(features.embed(batch))
            batch = []
    if batch:
        parts.append(features.embed(batch))
    return np.concatenate(parts)
