"""`fastgen train`: a linear probe on frozen features, with and without synthetic images, over seeds."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastgen.errors import DataError, FastgenError
from fastgen.files import atomic_write_text
from fastgen.train.backbone import Backbone, load_backbone
from fastgen.train.data import FolderImages, ImageSource, OutputImages, find_real, link, plain, read_synthetic
from fastgen.train.features import FeatureCache
from fastgen.train.probe import class_prompts
from fastgen.train.results import BOTH, REAL, make_metrics, write_heads
from fastgen.train.sampling import MIXES
from fastgen.train.trial import Problem, Trial, run_trial


def train(
    real: str | Path,
    *,
    out: str | Path,
    synthetic: str | Path | None = None,
    test: str | Path | None = None,
    backbone: str = "mini-resnet",
    shots: int | None = None,
    seeds: int = 5,
    steps: int | None = None,
    synthetic_probability: float = 0.5,
    mix: str = "parent",
    norm: str = "own",
    views: int = 8,
    cache: str | Path | None = None,
) -> dict[str, Any]:
    """Trains DALDA's linear probe on real images alone and, if given, on real and synthetic images.

    Both arms of a seed have the same few-shot choice, the same initial head and the same draws of real
    images. Every draw takes a real image; with `synthetic_probability` a synthetic child of it takes its
    place. Test accuracy is that of the last step on a full pass over the clean test images; nothing is chosen
    by it.

    Args:
        real: folder of class folders, or one with such folders `train` and `test` in it.
        out: folder for metrics.json and heads.safetensors.
        synthetic: an output folder of `fastgen run`; only its rows with status 0 are used.
        test: folder of class folders; without one (and without `real/test`) half of each class is held out,
            another half for every seed, as in DALDA.
        backbone: `mini-resnet`, `mini-clip`, `resnet50`, `clip-vit-b16`, or NAME=PATH of its weights.
        shots: real training images per class, those with synthetic children first; None takes all.
        seeds: number of seeds, 0..seeds-1.
        steps: training steps of 32 images; None takes the backbone's own (paper: 10 000).
        synthetic_probability: 0 to 1.
        mix: `parent`, `class_uniform` or `pool_uniform`; see `sampling.MIXES`.
        norm: `own`, or `half` for mean = std = 0.5 as in DALDA's code.
        views: augmented views per image (flip, rotation), cached; 0 trains on the clean images.
        cache: folder of cached features, which several trainings may share; None is `out`/features.

    Returns:
        the content of metrics.json; accuracies are 0 to 1.

    Raises:
        FastgenError: for input that cannot be used; its subclasses say which.
        DataError: if the synthetic images do not belong to the real ones.
    """
    _check(seeds=seeds, steps=steps, views=views, shots=shots, probability=synthetic_probability, mix=mix)
    network = load_backbone(backbone, norm=norm)
    store = FeatureCache(Path(cache) if cache else Path(out) / "features", network, views)
    images, test_images = find_real(Path(real), Path(test) if test else None)
    children = _read_children(Path(synthetic), images, mix) if synthetic else None
    recipe = replace(network.recipe, steps=steps or network.recipe.steps)
    sources: list[ImageSource] = [images, children.images] if children else [images]
    problem = Problem(
        classes=images.classes,
        features=np.concatenate([store.get(source) for source in sources]),
        labels=np.concatenate([images.labels, *([children.labels] if children else [])]),
        parents=children.parents if children else np.zeros(0, np.int64),
        test=(store.get(test_images, augmented=False)[:, 0], test_images.labels) if test_images else None,
        text=network.encode_text(class_prompts(images.classes)) if network.encode_text else None,
        recipe=recipe,
        shots=shots,
        probability=synthetic_probability,
        mix=mix,
    )
    trials = _run(problem, seeds, arms=(REAL, BOTH) if children else (REAL,))
    settings = {"shots": shots, "seeds": seeds, "synthetic_probability": synthetic_probability, "mix": mix}
    metrics = {
        **make_metrics(trials, images.classes),
        "settings": {**settings, "norm": norm, "views": views, **asdict(recipe)},
        "backbone": _about_backbone(network),
        "data": _about_data(images, test_images, children),
    }
    write_heads(Path(out) / "heads.safetensors", trials, images.classes, backbone=network)
    atomic_write_text(Path(out) / "metrics.json", json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    return metrics


def _check(
    *, seeds: int, steps: int | None, views: int, shots: int | None, probability: float, mix: str
) -> None:
    for name, value, low in (
        ("seeds", seeds, 1),
        ("steps", steps, 1),
        ("shots", shots, 1),
        ("views", views, 0),
    ):
        if value is not None and value < low:
            raise FastgenError(f"{name} is {value}; it must be at least {low}")
    if not 0.0 <= probability <= 1.0:
        raise FastgenError(f"synthetic_probability is {probability}; it must be 0 to 1")
    if mix not in MIXES:
        raise FastgenError(f"mix is {mix!r}; it must be one of {', '.join(MIXES)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Children:
    """The good synthetic rows that have a class of the real images.

    Attributes:
        images: S of them.
        labels: class of every row, int64 (S,).
        parents: real image each row was made of, int64 (S,), -1 for none.
        counts: what was found and what was left out, for metrics.json.
    """

    images: OutputImages
    labels: np.ndarray
    parents: np.ndarray
    counts: dict[str, Any]


def _read_children(out: Path, real: FolderImages, mix: str) -> Children:
    images, counts = read_synthetic(out, real.classes)
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
    return Children(images=images, labels=labels, parents=parents, counts=counts)


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


def _run(problem: Problem, seeds: int, *, arms: Sequence[str]) -> dict[str, list[Trial]]:
    trials: dict[str, list[Trial]] = {arm: [] for arm in arms}
    for seed in range(seeds):
        for arm in arms:
            trials[arm].append(run_trial(problem, seed, synthetic=arm == BOTH))
        shown = ", ".join(f"{arm} {100 * trials[arm][-1].accuracy.macro:.1f} %" for arm in arms)
        print(f"seed {seed}: macro accuracy {shown}", file=sys.stderr)
    return trials


def _about_backbone(network: Backbone) -> dict[str, Any]:
    names = ("name", "sha256", "dim", "size", "mean", "std")
    return {name: getattr(network, name) for name in names}


def _about_data(real: FolderImages, test: FolderImages | None, children: Children | None) -> dict[str, Any]:
    return {
        "real": {"images": len(real), "sha256": real.sha256},
        "test": {"images": len(test), "sha256": test.sha256} if test else "half of each class, per seed",
        "synthetic": children.counts if children else None,
    }
