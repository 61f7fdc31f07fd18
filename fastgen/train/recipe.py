"""How a classifier is trained, as one record whose every field can be set by name."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from fastgen.errors import FastgenError

CHOICES: dict[str, tuple[str, ...]] = {
    "tune": ("linear", "full", "lora"),
    "head": ("auto", "linear", "text", "cosine"),
    "transform": ("dalda", "datadream", "mae", "none"),
    "norm": ("own", "half"),
    "bn": ("frozen", "train", "batch_stats"),
    "mix": ("parent", "class_uniform", "pool_uniform", "replicate"),
    "real_repeat": ("floor", "exact"),
    "optimizer": ("adam", "adamw", "sgd"),
    "schedule": ("constant", "cosine"),
    "eval": ("full", "resample6400"),
    "select": ("auto", "last", "best_on_val", "best_on_eval"),
    "precision": ("fp32", "fp16", "bf16"),
}
"""What the text fields of a recipe may say."""

LIMITS: dict[str, tuple[float, float]] = {
    "lr": (0.0, 1e3), "blr": (0.0, 1e3), "weight_decay": (0.0, 1e3), "momentum": (0.0, 1.0), "steps": (1, 1e9),
    "epochs": (1, 1e6), "batch": (1, 1e6), "warmup": (0.0, 1e6), "min_lr": (0.0, 1e3), "layer_decay": (0.0, 1.0),
    "drop_path": (0.0, 1.0), "label_smoothing": (0.0, 1.0), "synthetic_probability": (0.0, 1.0),
    "real_weight": (0.0, 1.0), "mix_p": (0.0, 1.0), "mixup": (0.0, 100.0), "cutmix": (0.0, 100.0), "views": (0, 1e6),
    "random_erase": (0.0, 1.0), "eval_every": (1, 1e9), "clip_grad": (0.0, 1e9), "lora_rank": (1, 4096),
    "lora_alpha": (0.0, 1e6), "lora_dropout": (0.0, 1.0),
}  # fmt: skip
"""Smallest and largest value of the number fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a classifier is trained, selected and tested.

    Attributes:
        optimizer: "adam", "adamw" or "sgd" (with `momentum`).
        lr: peak learning rate; ignored where `blr` is given.
        blr: learning rate per 256 images of a batch, as MAE counts: lr = blr * batch / 256.
        weight_decay: of AdamW (decoupled) and SGD; Adam has none.
        steps: training steps, or None where `epochs` counts.
        epochs: passes through the training pool (see `mix`), or None where `steps` counts.
        batch: images per step, over all processes.
        tune: "linear" trains a head on the frozen backbone, "full" everything, "lora" low-rank updates of the
            query and value projections in both towers of a CLIP.
        head: "linear" starts as torch does, "text" from the un-normalised text embeddings of a CLIP, without
            logit scale (DALDA), "cosine" is CLIP's own zero-shot classifier, with logit scale (DataDream, BOB);
            "auto" is text for a CLIP (cosine with LoRA) and linear for the others.
        transform: of training images, see `transforms`.
        norm: "own" mean and std of the backbone, or "half" for 0.5 (DALDA's code).
        views: augmented views per image that the feature cache holds; 0 is the clean image alone.
        random_erase: chance that "mae" erases a rectangle.
        bn: "frozen" keeps BatchNorm's stored statistics, "train" trains with those of the batch (full), and
            "batch_stats" lets a frozen backbone use and drift with them (DALDA's code).
        mix: how synthetic images get into a batch, see `sampling.MIXES`.
        synthetic_probability: chance of a synthetic image per draw, for every mix but "replicate".
        real_repeat: of mix "replicate": copies of a real image, at least 1: "floor" of synthetic by real images,
            "exact" draws as many real as synthetic ones, or a whole number.
        real_weight: w of BOB's loss w * CE(real) + (1 - w) * CE(synthetic); None is the mean over all images.
        mix_p: chance per batch of CutMix or MixUp (one of them) inside the real and inside the synthetic part.
        mixup: alpha of MixUp's Beta distribution; 0 leaves MixUp out.
        cutmix: alpha of CutMix's; 0 leaves CutMix out.
        label_smoothing: 0 to 1.
        schedule: "constant", or "cosine" down to `min_lr`, after a linear rise from 0.
        warmup: epochs of that rise (with `steps`: of `eval_every` steps each).
        min_lr: where the cosine ends.
        momentum: of SGD.
        layer_decay: learning rate of a layer over that of the next one; None for the same everywhere.
        drop_path: stochastic depth of the last block.
        clip_grad: largest norm of the gradient; None does not clip.
        lora_rank: of LoRA.
        lora_alpha: LoRA's scale is alpha / rank.
        lora_dropout: chance that an input of the low-rank part is dropped.
        eval: "full", one pass over all test images; "resample6400", 6400 of them with replacement and macro
            accuracy with 0 for classes that were not drawn (DALDA's code).
        eval_every: steps between evaluations where `select` needs them; None is once per epoch (`steps`: 200).
        select: "last"; "best_on_val", the evaluation with the highest macro accuracy on validation images;
            "best_on_eval", the same on the test images, with all seeds averaged (DALDA's code; too optimistic);
            "auto" is best_on_val where there are validation images, else last.
        precision: "fp16" and "bf16" compute with mixed precision.
    """

    optimizer: str = "adam"
    lr: float = 1e-4
    blr: float | None = None
    weight_decay: float = 0.0
    steps: int | None = None
    epochs: int | None = None
    batch: int = 32
    tune: str = "linear"
    head: str = "auto"
    transform: str = "dalda"
    norm: str = "own"
    views: int = 8
    random_erase: float = 0.25
    bn: str = "frozen"
    mix: str = "parent"
    synthetic_probability: float = 0.5
    real_repeat: str | int = "floor"
    real_weight: float | None = None
    mix_p: float = 0.0
    mixup: float = 1.0
    cutmix: float = 1.0
    label_smoothing: float = 0.0
    schedule: str = "constant"
    warmup: float = 0.0
    min_lr: float = 0.0
    momentum: float = 0.9
    layer_decay: float | None = None
    drop_path: float = 0.0
    clip_grad: float | None = None
    lora_rank: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.1
    eval: str = "full"
    eval_every: int | None = None
    select: str = "auto"
    precision: str = "fp32"

    def __post_init__(self) -> None:
        """Refuses values out of their range, and fields that contradict each other."""
        for name, allowed in CHOICES.items():
            _check_choice(name, getattr(self, name), allowed)
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise FastgenError(f"{name} is {value}; it must be {_range(low, high)}")
        if self.steps is not None and self.epochs is not None:
            raise FastgenError(f"got steps {self.steps} and epochs {self.epochs}; give one of them")
        if self.bn == "train" and self.tune != "full":
            raise FastgenError(
                f"bn is 'train', but tune is {self.tune!r}: only a backbone that is trained in full has a BatchNorm "
                "to train; use bn frozen or batch_stats, or tune full"
            )
        if self.bn == "batch_stats" and self.tune != "linear":
            raise FastgenError("bn is 'batch_stats', which is for a frozen backbone; with tune full use bn train")
        if self.layer_decay is not None and self.tune != "full":
            raise FastgenError(f"layer_decay needs tune full; got tune {self.tune!r}")
        if self.real_weight is not None and self.mix != "replicate":
            raise FastgenError(
                f"real_weight weights the parts of a pool of real and synthetic images; it needs mix replicate, got "
                f"mix {self.mix!r}"
            )
        if self.mix_p and not self.mixup and not self.cutmix:
            raise FastgenError("mix_p is above 0, but mixup and cutmix are both 0; give one of them its alpha")

    @property
    def peak_lr(self) -> float:
        """The learning rate after warm-up."""
        return self.lr if self.blr is None else self.blr * self.batch / 256


def _check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if name == "real_repeat" and isinstance(value, int):
        if value < 1:
            raise FastgenError(f"real_repeat is {value}; it must be floor, exact or a whole number of at least 1")
    elif value not in allowed:
        raise FastgenError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")


def _range(low: float, high: float) -> str:
    return f"at least {low:g}" if high >= 1e2 else f"{low:g} to {high:g}"


def with_settings(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with some fields replaced; steps replace epochs, and epochs steps.

    Args:
        recipe: the rest comes from it.
        settings: field -> value; a text is read as JSON where it can be, else it stays a text.

    Raises:
        FastgenError: for an unknown field, a wrong type or a value that is not allowed.
    """
    types = {f.name: f.type.__name__ if isinstance(f.type, type) else str(f.type) for f in fields(Recipe)}
    values = {}
    for name, given in settings.items():
        if name not in types:
            raise FastgenError(f"a recipe has no field {name!r}; its fields are {', '.join(types)}")
        values[name] = _typed(name, given, types[name])
    for name, other in (("steps", "epochs"), ("epochs", "steps"), ("lr", "blr")):
        if values.get(name) is not None:
            values.setdefault(other, None)
    return replace(recipe, **values)


def _typed(name: str, given: Any, kind: str) -> Any:
    value = _read(given) if isinstance(given, str) else given
    if value is None and "None" in kind:
        return None
    if isinstance(value, bool):
        pass
    elif "float" in kind and isinstance(value, int | float):
        return float(value)
    elif "int" in kind and isinstance(value, int | float) and float(value).is_integer():
        return int(value)
    elif "str" in kind and isinstance(value, str):
        return value
    raise FastgenError(f"{name} is {given!r}; it must be {_kind_name(kind)}")


def _kind_name(kind: str) -> str:
    words = {"str": "text", "int": "a whole number", "float": "a number", "None": "null"}
    return " or ".join(words[part] for part in kind.split(" | "))


def _read(text: str) -> Any:
    readers: tuple[Callable[[str], Any], ...] = (json.loads, float)  # JSON does not know .5
    for read in readers:
        try:
            return read(text)
        except ValueError:
            continue
    return text


def read_settings(path: Path) -> dict[str, Any]:
    """Reads a recipe file: a JSON object of fields, which may start from a named recipe under `recipe`.

    Raises:
        FastgenError: if it cannot be read, or is no object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FastgenError(f"{path}: not a readable recipe ({error}); it must be a JSON object of fields") from error
    if not isinstance(found, dict):
        raise FastgenError(f"{path}: a recipe is a JSON object of fields, got {type(found).__name__}")
    return found
