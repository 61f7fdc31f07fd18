"""CLIP-I and perceptual distances of one class in the three pair sets of the card's section 2.9.

_ref          a generated image and its own reference
_class_real   a generated image and every real image of its class
_intra        unordered pairs of generated images
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fastgen.evaluate.class_images import ClassImages, RealImages, RefKey
from fastgen.evaluate.measure import Measure
from fastgen.evaluate.pairs import VectorSums, compare, mean_between, mean_within
from fastgen.files import atomic_write_text, sha256_json
from fastgen.shards.read import Output

CACHE_VERSION = 1
REAL, DONOR, GENERATED = range(3)
"""A real image of the class; a reference of another class; a generated image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassDiversity:
    """One measure of one class.

    Attributes:
        images: number n of generated images.
        real: number m of real images.
        ref: the measure of every generated image that has a reference, and that reference.
        class_real: mean over the n m pairs; None without a real image or without a generated one.
        intra: mean over the n (n - 1) / 2 pairs; None for fewer than two images.
    """

    images: int
    real: int
    ref: tuple[float, ...]
    class_real: float | None
    intra: float | None


@dataclass(frozen=True, slots=True)
class Diversity:
    """Measures classes of one output folder, each class once: what was measured is kept on the disk.

    Kept are the few numbers of a class, by the hash of its images, its references and the measure. Vectors are
    not: those of LPIPS take megabytes per image.

    Attributes:
        output: the opened folder.
        hashes: SHA-256 of the image of every row, (N,) bytes.
        real: its references.
        folder: of the kept numbers.
    """

    output: Output
    hashes: np.ndarray
    real: RealImages
    folder: Path

    def measure(
        self, images: ClassImages, measure: Measure, done: Callable[[int], None] = lambda n: None
    ) -> ClassDiversity:
        """The numbers of one class.

        Args:
            images: the class.
            measure: what to compare with.
            done: is told how many images have been dealt with since the last call.

        Raises:
            OutputError: if a shard is damaged, or the folder cannot be written.
        """
        path = self.folder / f"{self._key(images, measure)}.json"
        found = _kept(path)
        if found is None:
            found = self._compute(images, measure, done)
            atomic_write_text(path, json.dumps(asdict(found), allow_nan=False))
        else:
            done(images.images)
        return found

    def _key(self, images: ClassImages, measure: Measure) -> str:
        groups = [
            [ref and self.real.sha256(ref), ref in images.real, [self.hashes[row].decode() for row in rows]]
            for ref, rows in _groups(images)
        ]
        return sha256_json([CACHE_VERSION, measure.name, measure.kind, measure.sha256, groups])[:32]

    def _compute(self, images: ClassImages, measure: Measure, done: Callable[[int], None]) -> ClassDiversity:
        generated, real = VectorSums(), VectorSums()
        ref: list[float] = []
        reference: np.ndarray | None = None
        for role, vector in _vectors(self._pictures(images), measure):
            if role != GENERATED:
                reference = vector
                if role == REAL:
                    real.add(vector)
                continue
            generated.add(vector)
            if reference is not None:
                ref.append(compare(vector, reference, kind=measure.kind))
            done(1)
        return ClassDiversity(
            images=generated.n,
            real=real.n,
            ref=tuple(ref),
            class_real=mean_between(generated, real, kind=measure.kind),
            intra=mean_within(generated, kind=measure.kind),
        )

    def _pictures(self, images: ClassImages) -> Iterator[tuple[int, Image.Image]]:
        """Every reference once, directly before its children; what has no reference comes first."""
        for ref, rows in _groups(images):
            if ref is not None:
                yield (REAL if ref in images.real else DONOR), self.real.load(ref)
            for row in rows:
                yield GENERATED, Image.fromarray(self.output.image(row))


def _groups(images: ClassImages) -> list[tuple[RefKey | None, list[int]]]:
    """References with their children: first those without one, then in the order of their names."""
    refs = sorted({*images.real, *(ref for ref in images.rows if ref)}, key=lambda ref: (ref[0], ref[1] or ""))
    return [(None, images.rows.get(None, [])), *((ref, images.rows.get(ref, [])) for ref in refs)]


def _vectors(pictures: Iterator[tuple[int, Image.Image]], measure: Measure) -> Iterator[tuple[int, np.ndarray]]:
    """Embeds in batches and gives the vectors out one by one, so that only a batch is in memory."""
    roles: list[int] = []
    batch: list[Image.Image] = []
    for role, picture in pictures:
        roles.append(role)
        batch.append(picture)
        if len(batch) == measure.batch:
            yield from zip(roles, measure.embed(batch), strict=True)
            roles, batch = [], []
    if batch:
        yield from zip(roles, measure.embed(batch), strict=True)


def _kept(path: Path) -> ClassDiversity | None:
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return ClassDiversity(**{**found, "ref": tuple(found["ref"])})
