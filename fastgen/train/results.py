"""What a training leaves on disk for readers: metrics.json and the linear heads."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fastgen.errors import FastgenError
from fastgen.files import atomic_write_bytes
from fastgen.train.backbone import Backbone
from fastgen.train.metrics import Accuracy, grouped_accuracy, paired_difference, spread
from fastgen.train.sampling import BOTH, REAL
from fastgen.train.trial import Trial

METRICS_VERSION = 1
GROUPS = ("many", "medium", "few")


def make_metrics(
    trials: Mapping[str, Sequence[Trial]],
    classes: Sequence[str],
    *,
    select: str = "last",
    groups: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Summarises the trials.

    Args:
        trials: per arm one trial for every seed, same seeds in the same order.
        classes: names, in label order.
        select: how the step was chosen; "best_on_eval" takes here, for each arm, the evaluation whose macro
            accuracy is highest on average over the seeds (as DALDA's plots do).
        groups: m, f: classes with more than m real training images have many, those with fewer than f few.

    Returns:
        `fastgen_metrics` (format version), `classes`, `select`, `arms` with `accuracy_macro` and `accuracy_micro`
        (each mean, std, ci95, n), `accuracy_many` and so on with `groups`, and an entry per seed, and
        `difference` (both minus real, paired by seed; None without these two arms). Accuracies are 0 to 1.
    """
    if select == "best_on_eval":
        trials = {arm: _at_best_mean(of_arm) for arm, of_arm in trials.items()}
    entries = {arm: [_seed_entry(trial, classes, groups) for trial in of_arm] for arm, of_arm in trials.items()}
    names = ["accuracy_macro", "accuracy_micro"]
    if groups is not None:
        found = [entry for of_arm in entries.values() for entry in of_arm]
        names += [
            f"accuracy_{name}" for name in GROUPS if all(e[f"accuracy_{name}"] is not None for e in found)
        ]
    values = {arm: {name: [entry[name] for entry in of_arm] for name in names} for arm, of_arm in entries.items()}
    arms = {
        arm: {**{name: spread(values[arm][name]) for name in names}, "seeds": entries[arm]} for arm in trials
    }
    difference = None
    if BOTH in trials and REAL in trials:
        difference = {name: paired_difference(values[REAL][name], values[BOTH][name]) for name in names}
    return {
        "fastgen_metrics": METRICS_VERSION,
        "classes": list(classes),
        "select": select,
        "arms": arms,
        "difference": difference,
    }


def _at_best_mean(trials: Sequence[Trial]) -> list[Trial]:
    """The trials at the evaluation whose macro accuracy, averaged over them, is the highest."""
    macro = np.array([[measured.macro for _, measured in trial.history] for trial in trials])
    place = int(macro.mean(0).argmax())
    return [
        replace(trial, step=trial.history[place][0], accuracy=trial.history[place][1], last=trial.history[-1][1])
        for trial in trials
    ]


def _seed_entry(trial: Trial, classes: Sequence[str], groups: tuple[int, int] | None) -> dict[str, Any]:
    recalls = zip(classes, trial.accuracy.per_class, strict=True)
    entry = {
        "seed": trial.seed,
        **_both(trial.accuracy),
        "train_loss": trial.loss,
        "train_images": trial.train_images,
        "test_images": trial.test_images,
        "synthetic_share": trial.synthetic_share,
        "step": trial.step,
        "steps": trial.steps,
        "last": _both(trial.last) if trial.last else None,
        "validation": _both(trial.validation) if trial.validation else None,
        "per_class": {name: None if math.isnan(recall) else recall for name, recall in recalls},
        "train_counts": dict(zip(classes, trial.counts, strict=True)),
    }
    if groups is not None:
        grouped = grouped_accuracy(trial.accuracy.per_class, trial.counts, many=groups[0], few=groups[1])
        entry |= {f"accuracy_{name}": grouped[name]["accuracy"] for name in GROUPS}
        entry["group_classes"] = {name: grouped[name]["classes"] for name in GROUPS}
    return entry


def _both(accuracy: Accuracy) -> dict[str, float]:
    return {"accuracy_macro": accuracy.macro, "accuracy_micro": accuracy.micro}


def write_heads(
    path: Path, trials: Mapping[str, Sequence[Trial]], classes: Sequence[str], *, backbone: Backbone
) -> None:
    """Writes all heads into one safetensors file: `<arm>.seed<seed>.weight` (C, D) and `.bias` (C,).

    The metadata names the classes in label order, and the backbone with its hash and normalisation.
    """
    from safetensors.torch import save

    tensors = {
        f"{arm}.seed{trial.seed}.{name}": trial.state[f"{prefix}{name}"]
        for arm, of_arm in trials.items()
        for trial in of_arm
        for prefix in ["" if "weight" in trial.state else "head."]
        for name in ("weight", "bias")
    }
    metadata = {
        "classes": json.dumps(list(classes)),
        "backbone": backbone.name,
        "backbone_sha256": backbone.sha256,
        "mean": json.dumps(backbone.mean),
        "std": json.dumps(backbone.std),
    }
    atomic_write_bytes(path, save(tensors, metadata))


def load_head(path: str | Path, *, arm: str = REAL, seed: int = 0) -> nn.Linear:
    """Reads one head that `fastgen train` wrote.

    Args:
        path: a heads.safetensors.
        arm: `real` or `real+synthetic`.
        seed: which seed's.

    Returns:
        Linear(D, C); it takes features of the backbone that the file's metadata names.

    Raises:
        FastgenError: if the file cannot be read or has no such head.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise FastgenError(f"{path}: not a readable safetensors file ({error})") from error
    prefix = f"{arm}.seed{seed}"
    if f"{prefix}.weight" not in tensors:
        there = ", ".join(sorted({key.rsplit(".", 1)[0] for key in tensors}))
        raise FastgenError(f"{path}: has no head {prefix!r}; it has {there}")
    weight, bias = tensors[f"{prefix}.weight"], tensors[f"{prefix}.bias"]
    head = nn.Linear(weight.shape[1], weight.shape[0])
    head.load_state_dict({"weight": weight, "bias": bias})
    return head
