"""What a training leaves on disk: metrics.json and the heads."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from fastgen.errors import FastgenError
from fastgen.files import atomic_write_bytes
from fastgen.train.backbone import Backbone
from fastgen.train.metrics import paired_difference, spread
from fastgen.train.trial import Trial

METRICS_VERSION = 1
REAL, BOTH = "real", "real+synthetic"
"""Names of the two arms in metrics.json and in the checkpoint."""


def make_metrics(trials: Mapping[str, Sequence[Trial]], classes: Sequence[str]) -> dict[str, Any]:
    """Summarises the trials.

    Args:
        trials: per arm one trial for every seed, same seeds in the same order.
        classes: names, in label order.

    Returns:
        `fastgen_metrics` (format version), `classes`, `arms` with `accuracy_macro` and `accuracy_micro` (each
        mean, std, ci95, n) and an entry per seed, and `difference` (both minus real, paired by seed; None
        without a second arm). Accuracies are 0 to 1.
    """
    names = ("accuracy_macro", "accuracy_micro")
    values = {
        arm: {
            "accuracy_macro": [t.accuracy.macro for t in of_arm],
            "accuracy_micro": [t.accuracy.micro for t in of_arm],
        }
        for arm, of_arm in trials.items()
    }
    arms = {
        arm: {
            **{name: spread(values[arm][name]) for name in names},
            "seeds": [_seed_entry(trial, classes) for trial in of_arm],
        }
        for arm, of_arm in trials.items()
    }
    difference = None
    if BOTH in trials:
        difference = {name: paired_difference(values[REAL][name], values[BOTH][name]) for name in names}
    return {
        "fastgen_metrics": METRICS_VERSION,
        "classes": list(classes),
        "arms": arms,
        "difference": difference,
    }


def _seed_entry(trial: Trial, classes: Sequence[str]) -> dict[str, Any]:
    recalls = zip(classes, trial.accuracy.per_class, strict=True)
    return {
        "seed": trial.seed,
        "accuracy_macro": trial.accuracy.macro,
        "accuracy_micro": trial.accuracy.micro,
        "train_loss": trial.loss,
        "train_images": trial.train_images,
        "test_images": trial.test_images,
        "synthetic_share": trial.synthetic_share,
        "per_class": {name: None if math.isnan(recall) else recall for name, recall in recalls},
    }


def write_heads(
    path: Path, trials: Mapping[str, Sequence[Trial]], classes: Sequence[str], *, backbone: Backbone
) -> None:
    """Writes all heads into one safetensors file: `<arm>.seed<seed>.weight` (C, D) and `.bias` (C,).

    The metadata names the classes in label order, and the backbone with its hash and normalisation.
    """
    from safetensors.torch import save

    tensors = {
        f"{arm}.seed{trial.seed}.{name}": value
        for arm, of_arm in trials.items()
        for trial in of_arm
        for name, value in trial.head.state_dict().items()
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
