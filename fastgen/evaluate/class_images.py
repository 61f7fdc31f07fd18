"""The good images of an output folder by class, each with its reference, and the real images of the class."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastgen.errors import DataError, FastgenError
from fastgen.records import Ref
from fastgen.shards.read import Output, open_output
from fastgen.shards.schema import GOOD, status_counts

LoadReference = Callable[[Ref], Image.Image]
RefKey = tuple[str, str | None]
"""Id and path of a reference."""


@dataclass(slots=True)
class ClassImages:
    """One class of an output folder.

    Attributes:
        name: of the class.
        failed: rows with another status than good; none of them is in `rows`.
        rows: numbers of the good rows by their reference; None for rows without one, or whose reference is
            not at hand.
        real: references that are real images of this class, also those that only rows of other classes use.
        scores: CLIP score of every reference that good rows of the class use, where they have one.
    """

    name: str
    failed: int = 0
    rows: dict[RefKey | None, list[int]] = field(default_factory=dict)
    real: set[RefKey] = field(default_factory=set)
    scores: dict[Any, float] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """Number of good rows."""
        return sum(len(rows) for rows in self.rows.values())


class RealImages:
    """The references of an output folder that can be loaded; those that cannot are counted.

    Attributes:
        missing: ids of the references that were asked for and could not be loaded.
    """

    def __init__(self, load: LoadReference | None) -> None:
        """Wraps a loader; None where the folder of the references is not known."""
        self.missing: list[str] = []
        self._load = load
        self._hashes: dict[RefKey, str | None] = {}

    def load(self, key: RefKey) -> Image.Image:
        """The image of a reference, RGB.

        Raises:
            FastgenError: if it cannot be loaded.
        """
        assert self._load is not None, "only what has a hash is loaded"
        return self._load(Ref(id=key[0], path=key[1])).convert("RGB")

    def sha256(self, key: RefKey) -> str | None:
        """Hash of the size and pixels of a reference; None if it cannot be loaded."""
        if key not in self._hashes:
            self._hashes[key] = self._hash(key)
        return self._hashes[key]

    def _hash(self, key: RefKey) -> str | None:
        try:
            if self._load is None:
                raise FastgenError("the references of this folder were not found")
            image = self.load(key)
        except FastgenError:  # the reference's folder has changed since: counted, and said in the report
            self.missing.append(key[0])
            return None
        return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()


def open_good(out: str | Path) -> Output:
    """Opens an output folder that has good rows.

    Raises:
        OutputError: there are no shards, or one is damaged.
        DataError: no row is good.
    """
    output = open_output(out)
    if not len(output.good):
        statuses = {name: count for name, count in status_counts(output.status).items() if count}
        raise DataError(f"{out}: none of its {len(output)} rows is good ({statuses}); see fastgen verify {out}")
    return output


def read_classes(output: Output, real: RealImages) -> tuple[list[ClassImages], dict[str, int]]:
    """Sorts the rows of an output folder by class and reference.

    Args:
        output: an opened output folder.
        real: its references.

    Returns:
        one entry per class of the bank, in label order; and counts: good rows `without_reference` (none was
        planned) and with `reference_missing`, `references` that were loaded.
    """
    classes = [ClassImages(name) for name in output.classes]
    counts = {"without_reference": 0, "reference_missing": 0}
    found: set[RefKey] = set()
    for number, row in enumerate(output):
        label = int(output.labels[number])
        key = _reference(row)
        there = key is not None and real.sha256(key) is not None
        if key is not None and there:
            found.add(key)
            own = row["ref"].get("label")
            classes[label if own is None else own].real.add(key)
        if output.status[number] != GOOD:
            classes[label].failed += 1
            continue
        counts["without_reference"] += key is None
        counts["reference_missing"] += key is not None and not there
        classes[label].rows.setdefault(key if there else None, []).append(number)
        score = row.get("score")
        if score is not None and np.isfinite(score):
            classes[label].scores[key or row["id"]] = float(score)
    return classes, {**counts, "references": len(found)}


def _reference(row: Mapping[str, Any]) -> RefKey | None:
    ref = row.get("ref")
    return None if ref is None else (ref["id"], ref.get("path"))
