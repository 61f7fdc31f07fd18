"""Everything that the trials of one command share: images, backbone, split, and the problem of a recipe."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.state import PartialState

from fastgen.errors import FastgenError
from fastgen.files import sha256_json
from fastgen.train.backbone import Backbone, with_norm
from fastgen.train.data import FolderImages, ImageSource, find_images, find_real, refuse_shared
from fastgen.train.devices import usable_precision
from fastgen.train.features import FeatureCache
from fastgen.train.images import CachedFeatures, Images, Pixels
from fastgen.train.long_tail import exponential_counts
from fastgen.train.loss import Targets
from fastgen.train.network import check_head
from fastgen.train.recipe import Recipe
from fastgen.train.synthetic import Children, read_children
from fastgen.train.trial import Labelled, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What is trained on, and from where.

    Attributes:
        backbone: where a network starts.
        real: real images.
        test: test images; None holds out half of each class.
        children: synthetic images, or None.
        validation: images of a validation folder, or None.
        validation_per_class: or how many per class are taken from other images; 0 for none.
        validation_from_test: whether from the test images.
        shots: real training images per class; None for all.
        cache: folder of cached features.
    """

    backbone: Backbone
    real: FolderImages
    test: FolderImages | None
    children: Children | None
    validation: FolderImages | None
    validation_per_class: int
    validation_from_test: bool
    shots: int | tuple[int, ...] | None
    cache: Path

    @property
    def identity(self) -> str:
        """Hash of everything but the recipe, the arm and the seed that decides a trial's numbers."""
        children = self.children
        soft = {str(row): target.tolist() for row, target in children.soft.items()} if children else {}
        parts = {
            "backbone": self.backbone.sha256,
            "classes": self.real.classes,
            "real": self.real.sha256,
            "test": self.test.sha256 if self.test else None,
            "validation": self.validation.sha256 if self.validation else None,
            "validation_per_class": [self.validation_per_class, self.validation_from_test],
            "shots": self.shots,
            "synthetic": [children.images.sha256, children.parents.tolist(), soft] if children else None,
        }
        return sha256_json(parts)

    def problem(self, recipe: Recipe) -> Problem:
        """The problem that a recipe's trials solve; computes features where they can be cached."""
        sources: list[ImageSource] = [self.real, *([self.children.images] if self.children else [])]
        labels = np.concatenate([self.real.labels, *([self.children.labels] if self.children else [])])
        soft = {len(self.real) + row: target for row, target in self.children.soft.items()} if self.children else {}
        problem = Problem(
            classes=self.real.classes,
            images=self._images(recipe, sources),
            targets=Targets(labels, len(self.real.classes), soft),
            parents=self.children.parents if self.children else np.zeros(0, np.int64),
            test=self._labelled(recipe, self.test),
            recipe=recipe,
            shots=self.shots,
            validation=self._labelled(recipe, self.validation),
            validation_per_class=self.validation_per_class,
            validation_from_test=self.validation_from_test,
        )
        if problem.select == "best_on_val" and problem.validation is None and not self.validation_per_class:
            raise FastgenError("select is best_on_val, but there are no validation images; give some with --val")
        return problem

    def _labelled(self, recipe: Recipe, images: FolderImages | None) -> Labelled | None:
        if images is None:
            return None
        source = self._images(recipe, [images], augmented=False)
        return Labelled(images=source, labels=images.labels, rows=np.arange(len(images)))

    def _images(self, recipe: Recipe, sources: list[ImageSource], *, augmented: bool = True) -> Images:
        backbone = with_norm(self.backbone, recipe.norm)
        if not cacheable(recipe):
            return Pixels(tuple(sources), backbone, recipe)
        store = FeatureCache(self.cache, backbone, recipe.views if recipe.transform == "dalda" else 0)
        with PartialState().main_process_first():
            features = [store.get(source, augmented=augmented) for source in sources]
        return CachedFeatures(np.concatenate(features) if len(features) > 1 else features[0], backbone)

    def resolved(self, recipe: Recipe, *, precision_asked: bool) -> Recipe:
        """The recipe with what depends on backbone and machine decided: head and precision."""
        precision = usable_precision(recipe.precision, asked=precision_asked)
        return replace(recipe, head=check_head(self.backbone, recipe), precision=precision)

    def about(self) -> dict[str, Any]:
        """What metrics.json says about backbone and data."""
        names = ("name", "sha256", "dim", "size", "mean", "std")
        return {
            "backbone": {name: getattr(self.backbone, name) for name in names},
            "data": {
                "real": {"images": len(self.real), "sha256": self.real.sha256},
                "test": _about(self.test) if self.test else "half of each class, per seed",
                "validation": _about(self.validation) if self.validation else self._about_validation(),
                "synthetic": self.children.counts if self.children else None,
            },
        }

    def _about_validation(self) -> str | None:
        source = "test images" if self.validation_from_test else "real images that are not trained on"
        return f"{self.validation_per_class} of each class's {source}, per seed" if self.validation_per_class else None


def _about(images: FolderImages) -> dict[str, Any]:
    return {"images": len(images), "sha256": images.sha256}


def cacheable(recipe: Recipe) -> bool:
    """Whether all that a training sees of an image is a few features of it, computed once."""
    return (
        recipe.tune == "linear"
        and recipe.bn == "frozen"
        and recipe.transform in ("dalda", "none")
        and recipe.mix_p == 0
    )


def find_material(
    real: Path,
    backbone: Backbone,
    *,
    synthetic: Path | None,
    keep: Path | None,
    test: Path | None,
    val: str | None,
    shots: int | None,
    imbalance: float | None,
    mix: str,
    cache: Path,
) -> Material:
    """Finds the images.

    Args:
        real: class folders, or a folder with `train` and `test`.
        backbone: where the networks start.
        synthetic: output folder of `fastgen run`, or None.
        keep: selection of its images, or None.
        test: class folders, or None.
        val: a folder of class folders, "N" for N images per class of those that are not trained on, "test:N" for N
            test images per class, or None.
        shots: real training images per class, or None.
        imbalance: makes the real training set long-tailed, or None; see `exponential_counts`.
        mix: the recipe's; `parent` needs synthetic images with parents.
        cache: folder of cached features.

    Raises:
        FastgenError: for input that cannot be used.
    """
    if shots is not None and imbalance is not None:
        raise FastgenError(f"got shots {shots} and imbalance {imbalance:g}; give one of them")
    images, test_images = find_real(real, test)
    counts: int | tuple[int, ...] | None = shots
    if imbalance is not None:
        frequencies = np.bincount(images.labels, minlength=len(images.classes))
        counts = tuple(exponential_counts(frequencies, imbalance).tolist())
    folder, per_class, from_test = _validation(val)
    validation = find_images(folder, images.classes) if folder else None
    if validation is not None:
        refuse_shared(validation, images, "a training image")
        if test_images is not None:
            refuse_shared(validation, test_images, "a test image")
    return Material(
        backbone=backbone, real=images, test=test_images,
        children=read_children(synthetic, images, mix, keep=keep) if synthetic else None,
        validation=validation, validation_per_class=per_class, validation_from_test=from_test,
        shots=counts, cache=cache,
    )  # fmt: skip


def _validation(val: str | None) -> tuple[Path | None, int, bool]:
    """Folder, images per class, and whether those are test images."""
    if val is None:
        return None, 0, False
    match = re.fullmatch(r"(test:)?(\d+)", val)
    if match is None:
        if not Path(val).is_dir():
            raise FastgenError(
                f"val is {val!r}; it must be a folder of class folders, a number of images per class, or test:N for "
                "N test images per class"
            )
        return Path(val), 0, False
    if int(match[2]) < 1:
        raise FastgenError(f"val is {val!r}; it must take at least 1 image per class")
    return None, int(match[2]), match[1] is not None

