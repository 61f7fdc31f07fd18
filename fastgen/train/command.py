"""`fastgen train`: classifiers on real images, and on real plus synthetic ones, over seeds."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate.state import PartialState

from fastgen.errors import FastgenError
from fastgen.files import atomic_write_text
from fastgen.train.backbone import load_backbone, with_norm
from fastgen.train.material import Material, find_material
from fastgen.train.recipe import Recipe
from fastgen.train.recipes import choose_recipe
from fastgen.train.results import make_metrics, write_heads
from fastgen.train.sampling import BOTH, REAL, SYNTHETIC
from fastgen.train.trial import Problem, Trial
from fastgen.train.trial_store import TrialStore


def train(
    real: str | Path,
    *,
    out: str | Path,
    synthetic: str | Path | None = None,
    keep: str | Path | None = None,
    test: str | Path | None = None,
    val: str | Path | int | None = None,
    backbone: str = "mini-resnet",
    recipe: str | None = None,
    tune: str | None = None,
    shots: int | None = None,
    imbalance: float | None = None,
    groups: tuple[int, int] | None = None,
    seeds: int = 5,
    steps: int | None = None,
    synthetic_probability: float | None = None,
    mix: str | None = None,
    norm: str | None = None,
    views: int | None = None,
    synthetic_only: bool = False,
    settings: Mapping[str, Any] | None = None,
    cache: str | Path | None = None,
) -> dict[str, Any]:
    """Trains a classifier on real images alone and, if given, on real and synthetic images.

    Without a recipe this is DALDA's linear probe: every draw takes a real image, and with
    `synthetic_probability` a synthetic child of it takes its place. The arms of a seed have the same few-shot
    choice, the same initial network and comparable draws. Finished trials are kept under `out`/trials and a
    stopped training goes on from its checkpoint, so that the same command ends with the same numbers.

    Args:
        real: folder of class folders, or one with such folders `train` and `test` in it.
        out: folder for metrics.json, the trials and, of linear probes, heads.safetensors.
        synthetic: an output folder of `fastgen run`; only its rows with status 0 are used.
        keep: file of `fastgen filter` that says which of them; None takes all.
        test: folder of class folders; without one (and without `real/test`) half of each class is held out,
            another half for every seed, as in DALDA.
        val: images that the best step is chosen on: a folder, N images per class that are not trained on, or
            "test:N" test images per class; those leave the test set.
        backbone: `mini-resnet`, `mini-clip`, any timm or open_clip model; see `load_backbone`.
        recipe: `dalda-paper`, `dalda-official`, `datadream`, `bob`, `mae`, a JSON file of `Recipe` fields, or
            None for DALDA's linear probe (on the mini networks with a tenth of its steps).
        tune: `linear`, `full` or `lora`.
        shots: real training images per class, those with synthetic children first; None takes all.
        imbalance: makes the real training set long-tailed: the largest class over the smallest.
        groups: m, f: accuracies of classes with more than m, m to f, and fewer than f real training images.
        seeds: number of seeds, 0..seeds-1.
        steps: training steps.
        synthetic_probability: 0 to 1.
        mix: `parent`, `class_uniform`, `pool_uniform` or `replicate`; see `sampling.MIXES`.
        norm: `own`, or `half` for mean = std = 0.5 as in DALDA's code.
        views: augmented views per image (flip, rotation) where features are cached; 0 trains on clean images.
        synthetic_only: adds the arm that sees synthetic images alone.
        settings: further fields of the recipe (`Recipe`), by name.
        cache: folder of cached features, which several trainings may share; None is `out`/features.

    Returns:
        the content of metrics.json; accuracies are 0 to 1.

    Raises:
        FastgenError: for input that cannot be used; its subclasses say which.
        DataError: if the synthetic images do not belong to the real ones.
        Interrupted: if a stop signal came in; run the same command again.
    """
    check_numbers(seeds=seeds, shots=shots, groups=groups)
    if synthetic_only and synthetic is None:
        raise FastgenError("synthetic_only needs synthetic images; give --synthetic")
    named = {
        "tune": tune, "steps": steps, "synthetic_probability": synthetic_probability, "mix": mix, "norm": norm,
        "views": views,
    }  # fmt: skip
    changes = {name: value for name, value in named.items() if value is not None} | dict(settings or {})
    material, chosen = start(
        real, out=out, synthetic=synthetic, keep=keep, test=test, val=val, backbone=backbone, recipe=recipe,
        shots=shots, imbalance=imbalance, cache=cache, changes=changes,
    )  # fmt: skip
    problem = material.problem(chosen)
    store = TrialStore(Path(out) / "trials", material.identity)
    trials = _run(problem, store, seeds, arms=arms_of(material, synthetic_only))
    shown = {"recipe": recipe, "val": None if val is None else str(val), "imbalance": imbalance, "groups": groups}
    return write_results(
        Path(out), material, problem, trials, groups=groups, settings={"shots": shots, "seeds": seeds, **shown}
    )


def start(
    real: str | Path,
    *,
    out: str | Path,
    synthetic: str | Path | None,
    keep: str | Path | None,
    test: str | Path | None,
    val: str | Path | int | None,
    backbone: str,
    recipe: str | None,
    shots: int | None,
    imbalance: float | None,
    cache: str | Path | None,
    changes: Mapping[str, Any],
) -> tuple[Material, Recipe]:
    """Loads the backbone, decides the recipe and finds the images; the arguments are those of `train`."""
    if keep is not None and synthetic is None:
        raise FastgenError("keep chooses among synthetic images; give --synthetic")
    network = load_backbone(backbone, device=str(PartialState().device))
    chosen = choose_recipe(recipe, network.kind, default=network.recipe, settings=changes)
    material = find_material(
        Path(real), network, synthetic=Path(synthetic) if synthetic else None, keep=Path(keep) if keep else None,
        test=Path(test) if test else None,
        val=None if val is None else str(val), shots=shots, imbalance=imbalance, mix=chosen.mix,
        cache=Path(cache) if cache else Path(out) / "features",
    )  # fmt: skip
    return material, material.resolved(chosen, precision_asked="precision" in changes)


def arms_of(material: Material, synthetic_only: bool) -> list[str]:
    """The arms that can be trained, in the order they are shown."""
    if material.children is None:
        return [REAL]
    return [REAL, BOTH, *([SYNTHETIC] if synthetic_only else [])]


def check_numbers(*, groups: tuple[int, int] | None, **counts: int | None) -> None:
    """Refuses counts below 1, and groups that overlap."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise FastgenError(f"{name} is {value}; it must be at least 1")
    if groups is not None and not 0 < groups[1] <= groups[0]:
        raise FastgenError(f"groups are {groups[0]},{groups[1]}; the first (many: more than it) must not be below the "
                           "second (few: fewer than it), which must be above 0")  # fmt: skip


def _run(problem: Problem, store: TrialStore, seeds: int, *, arms: Sequence[str]) -> dict[str, list[Trial]]:
    trials: dict[str, list[Trial]] = {arm: [] for arm in arms}
    for seed in range(seeds):
        for arm in arms:
            trials[arm].append(store.run(problem, seed, arm=arm))
        shown = ", ".join(f"{arm} {100 * trials[arm][-1].accuracy.macro:.1f} %" for arm in arms)
        if PartialState().is_main_process:
            print(f"seed {seed}: macro accuracy {shown}", file=sys.stderr)
    return trials


def write_results(
    out: Path,
    material: Material,
    problem: Problem,
    trials: Mapping[str, Sequence[Trial]],
    *,
    groups: tuple[int, int] | None,
    settings: Mapping[str, Any],
    **more: Any,
) -> dict[str, Any]:
    """Writes metrics.json and, of linear probes, heads.safetensors.

    Args:
        out: the folder.
        material: what was trained on.
        problem: with the recipe.
        trials: per arm one for every seed.
        groups: as `train`.
        settings: of the command; those of the recipe are added.
        more: further entries of metrics.json.

    Returns:
        the content of metrics.json.
    """
    steps = list(trials.values())[-1][0].steps
    metrics = {
        **make_metrics(trials, problem.classes, select=problem.select, groups=groups),
        "settings": {**settings, **asdict(problem.recipe), "steps": steps},
        **material.about(),
        **more,
    }
    if PartialState().is_main_process:
        if problem.recipe.tune == "linear" and problem.recipe.head != "cosine":
            path = out / "heads.safetensors"
            write_heads(path, trials, problem.classes, backbone=with_norm(material.backbone, problem.recipe.norm))
        atomic_write_text(out / "metrics.json", json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    return metrics
