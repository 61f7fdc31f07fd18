"""What needs a folder of real images: FID per class, and the context probe; two sections of report.json."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastgen.bank.captions import ATTRIBUTES, read_captions
from fastgen.errors import FastgenError
from fastgen.evaluate.class_fid import fid_entry, fid_notes
from fastgen.evaluate.context_probe import context_entry, context_notes
from fastgen.evaluate.features import BATCH, Features, load_features
from fastgen.plan.folders import inside, list_folders, list_images, match_names
from fastgen.plan.pictures import open_picture
from fastgen.shards.read import Output


def real_sections(
    output: Output,
    *,
    real: str | Path | None,
    captions: str | Path | None,
    probe: str | Path | None,
    features: str | None,
    fid_images: int | None,
    clip: str | Path | None,
    device: str,
) -> tuple[dict[str, Any], list[str]]:
    """Measure what the given folders allow.

    Args:
        output: an opened output folder with good rows.
        real: real images, one folder per class, for FID; None: no FID.
        captions: backgrounds and poses of the images in `probe`, as `fastgen caption` and `fastgen petworld` write
            them; None: no context probe.
        probe: the images that the captions are about; None takes `real`. Their classes need not be those of the
            output; contexts that do not depend on the class make the best probe.
        features: of both, as `load_features` takes it; None: the embedded ResNet for FID, and CLIP for the probe,
            because CLIP knows places and poses (on 240 PetWorld pictures its probe is right on 93 % of backgrounds and
            77 % of poses it has not seen, the ResNet's, which was trained to tell breeds, on 60 % and 43 %).
        fid_images: generated and real images of each class that FID takes, the first ones; None takes all.
        clip: the CLIP of `features` "clip"; None is the embedded one.
        device: torch device.

    Returns:
        The sections `fid` and `context` that were asked for, and notes.

    Raises:
        FastgenError: captions without images, or a folder that fits no class.
        BankError, DataError: the captions cannot be used.
        ModelError: the weights of an extractor are not at hand.
    """
    if captions is not None and probe is None and real is None:
        raise FastgenError("captions: got no images for them; give their folder with --probe, or --real")
    if fid_images is not None and fid_images < 2:
        raise FastgenError(f"fid_images: got {fid_images}; allowed: 2 or more")
    sections: dict[str, Any] = {}
    notes: list[str] = []
    if real is not None:
        extractor = load_features(features, clip=clip, device=device)
        sections["fid"] = _fid(output, extractor, Path(real), fid_images)
        notes += fid_notes(sections["fid"])
    if captions is not None:
        extractor = load_features(features or "clip", clip=clip, device=device)
        sections["context"] = _context(output, extractor, captions, Path(probe or real or ""))
        notes += context_notes(sections["context"]["attributes"])
    return sections, notes


def _fid(output: Output, features: Features, real: Path, fid_images: int | None) -> dict[str, Any]:
    files = _class_files(real, output.classes)
    found = {name: _embed(features, map(open_picture, paths[:fid_images])) for name, paths in files.items()}
    labels = output.labels[output.good]
    mine = {}
    for label, name in enumerate(output.classes):
        if len(rows := output.good[labels == label][:fid_images]):
            mine[name] = _embed(features, _generated(output, rows))
    return {"features": features.name, **features.about, **fid_entry(output.classes, mine, found)}


def _context(output: Output, features: Features, captions: str | Path, probe: Path) -> dict[str, Any]:
    lines = read_captions(captions, attributes=ATTRIBUTES)
    base = probe.resolve()
    entry = context_entry(
        _embed(features, (open_picture(inside([base], line.file)) for line in lines)),
        [line.attributes for line in lines],
        _embed(features, _generated(output, output.good)),
        classes=[output.classes[label] for label in output.labels[output.good]],
        rows=[output[int(row)] for row in output.good],
    )
    return {"features": features.name, **features.about, "attributes": entry}


def _generated(output: Output, rows: Iterable[int]) -> Iterator[Image.Image]:
    return (Image.fromarray(output.image(int(row))) for row in rows)


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
