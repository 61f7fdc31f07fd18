"""The synthetic images that a training can use, with their parents among the real ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastgen.errors import DataError
from fastgen.train.data import FolderImages, OutputImages, link, plain, read_synthetic


@dataclass(frozen=True, slots=True, kw_only=True)
class Children:
    """The good synthetic rows that have a class of the real images.

    Attributes:
        images: S of them.
        labels: class of every row, int64 (S,).
        parents: real image each row was made of, int64 (S,), -1 for none.
        counts: what was found and what was left out, for metrics.json.
        soft: row -> distribution over the classes, float64 (C,), of the rows with soft labels.
    """

    images: OutputImages
    labels: np.ndarray
    parents: np.ndarray
    counts: dict[str, Any]
    soft: dict[int, np.ndarray]


def read_children(out: Path, real: FolderImages, mix: str, *, keep: Path | None = None) -> Children:
    """Reads the synthetic images of an output folder and finds their parents and their labels.

    Args:
        out: an output folder of `fastgen run`.
        real: the real images.
        mix: as in a recipe; `parent` needs parents.
        keep: a selection of the images, or None for all.

    Raises:
        DataError: if no synthetic image can be used, or one has a soft label of a class that is not trained.
    """
    images, counts = read_synthetic(out, real.classes, keep=keep)
    label_of = {plain(name): label for label, name in enumerate(real.classes)}
    parents = link(images.ref_ids, real.paths)
    linked = parents[parents >= 0]
    if mix == "parent" and not len(linked):
        raise DataError(_unlinked(out, real, images.ref_ids))
    counts |= {
        "images": len(images),
        "with_parent": len(linked),
        "parents": len(np.unique(linked)),
        "without_reference": sum(not ref for ref in images.ref_ids),
    }
    labels = np.array([label_of[plain(name)] for name in images.classes], np.int64)
    soft = _soft_targets(images, label_of)
    if soft:
        counts["soft_labels"] = len(soft)
    return Children(images=images, labels=labels, parents=parents, counts=counts, soft=soft)


def _soft_targets(images: OutputImages, label_of: dict[str, int]) -> dict[int, np.ndarray]:
    """Row -> distribution, for the rows that have `labels` (Diff-Mix); weights of one class are added up."""
    found: dict[int, np.ndarray] = {}
    for place, number in enumerate(images.rows):
        labels = images.output[int(number)].get("labels") or ()
        for label, weight in labels:
            name = images.output.classes[label]
            if plain(name) not in label_of:
                raise DataError(
                    f"row {images.output[int(number)]['id']!r} has a soft label of class {name!r}, which has no real "
                    "images; add a class folder for it, or leave such rows out of the bank"
                )
            target = found.setdefault(place, np.zeros(len(label_of)))
            target[label_of[plain(name)]] += weight
    return found


def _unlinked(out: Path, real: FolderImages, refs: Sequence[str]) -> str:
    named = next((ref for ref in refs if ref), None)
    got = (
        f"first reference id {named!r}, first real image {real.paths[0]!r}"
        if named
        else "no row has a reference"
    )
    return (
        f"{out}: no synthetic image is a child of an image in {real.root} ({got}). Give the folder that the "
        "references came from, or another mix (--mix class_uniform)."
    )
