"""Finished trials on disk: a JSON file and the learnt weights, found again by everything that decides them."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate.state import PartialState
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from fastgen.errors import OutputError
from fastgen.files import atomic_write_bytes, atomic_write_text, sha256_json
from fastgen.train.metrics import Accuracy
from fastgen.train.recipe import Recipe
from fastgen.train.trial import Problem, Trial, run_trial

TRIAL_VERSION = 1


@dataclass(frozen=True, slots=True)
class TrialStore:
    """A folder of trials.

    Attributes:
        folder: where the files lie.
        identity: hash of everything the trials share that decides their numbers: data, backbone, split.
    """

    folder: Path
    identity: str

    def run(self, problem: Problem, seed: int, *, arm: str) -> Trial:
        """The trial from disk, or trained now and written.

        Args:
            problem: data and recipe.
            seed: of the trial.
            arm: as `run_trial`.

        Raises:
            OutputError: if a file cannot be read or written.
            FastgenError: as `run_trial`.
        """
        path = self.path(problem.recipe, seed, arm=arm)
        if path.is_file():
            return read_trial(path)
        checkpoint = path.with_suffix(".checkpoint")
        trial = run_trial(problem, seed, arm=arm, checkpoint=checkpoint)
        process = PartialState()
        if process.is_main_process:
            write_trial(path, trial, arm=arm, recipe=problem.recipe)
            checkpoint.unlink(missing_ok=True)
        process.wait_for_everyone()
        return trial

    def path(self, recipe: Recipe, seed: int, *, arm: str) -> Path:
        """File of a trial, which is there once it is finished."""
        key = sha256_json([TRIAL_VERSION, self.identity, asdict(recipe), arm, seed])[:16]
        return self.folder / f"{arm}.seed{seed}.{key}.json"


def write_trial(path: Path, trial: Trial, *, arm: str, recipe: Recipe) -> None:
    """Writes the weights, and then the JSON file: where it is, the trial is complete."""
    atomic_write_bytes(path.with_suffix(".safetensors"), save(trial.state, {"format": "pt"}))
    content = {
        "fastgen_trial": TRIAL_VERSION, "arm": arm, "seed": trial.seed, "recipe": asdict(recipe),
        "accuracy": _pack(trial.accuracy), "loss": trial.loss, "train_images": trial.train_images,
        "test_images": trial.test_images, "synthetic_share": trial.synthetic_share, "step": trial.step,
        "steps": trial.steps, "counts": trial.counts, "last": _pack(trial.last), "validation": _pack(trial.validation),
        "history": [[step, _pack(measured)] for step, measured in trial.history],
    }  # fmt: skip
    atomic_write_text(path, json.dumps(content, allow_nan=False) + "\n")


def read_trial(path: Path) -> Trial:
    """Reads what `write_trial` wrote.

    Raises:
        OutputError: if one of the two files is damaged or of another version.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        state = load_file(path.with_suffix(".safetensors"))
        if found["fastgen_trial"] != TRIAL_VERSION:
            raise ValueError(f"its version is {found['fastgen_trial']}, this fastgen reads {TRIAL_VERSION}")
        accuracy = _unpack(found["accuracy"])
        assert accuracy is not None
        plain = {name: found[name] for name in ("seed", "loss", "train_images", "test_images", "synthetic_share")}
        history = [(step, measured) for step, a in found["history"] if (measured := _unpack(a)) is not None]
        return Trial(
            **plain, state=state, accuracy=accuracy, step=found["step"], steps=found["steps"],
            counts=tuple(found["counts"]), last=_unpack(found["last"]), validation=_unpack(found["validation"]),
            history=history,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise OutputError(f"{path}: not a finished trial ({error}); delete it to train it again") from error


def _pack(accuracy: Accuracy | None) -> list[Any] | None:
    if accuracy is None:
        return None
    return [accuracy.macro, accuracy.micro, [None if math.isnan(r) else r for r in accuracy.per_class]]


def _unpack(packed: Sequence[Any] | None) -> Accuracy | None:
    if packed is None:
        return None
    macro, micro, per_class = packed
    return Accuracy(macro, micro, tuple(math.nan if r is None else r for r in per_class))
