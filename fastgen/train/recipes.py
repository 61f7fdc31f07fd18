"""The recipes that have a name, per kind of backbone, and the grids that a sweep searches."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from fastgen.errors import FastgenError
from fastgen.train.recipe import Recipe, read_settings, with_settings

KINDS = ("clip", "cnn", "vit")
"""A backbone with a text tower, one with BatchNorm, and all others."""

PAPER_RESNET = Recipe(optimizer="adam", lr=1e-4, weight_decay=0.0, steps=10_000)
PAPER_CLIP = Recipe(optimizer="adamw", lr=2e-4, weight_decay=0.1, steps=10_000)
MINI_RESNET = replace(PAPER_RESNET, lr=1e-3, steps=1_000)
MINI_CLIP = replace(PAPER_CLIP, lr=2e-3, steps=1_000)
"""Ten times the learning rate for a tenth of the steps: Adam moves a weight by at most about lr per step, so
the head covers the same distance, and AdamW's decay (lr times steps) is the same. Measured on features of the
mini CLIP, 37 PetWorld breeds, 1 shot, 5 seeds, macro accuracy in %: Adam 39.8 (sd 3.8) against 39.2 (3.7)
with the paper's recipe, AdamW 78.1 (1.1) against 78.3 (1.5)."""

DALDA = {"clip": PAPER_CLIP, "cnn": PAPER_RESNET, "vit": PAPER_RESNET}

_POOLED = Recipe(
    optimizer="adamw", epochs=100, batch=64, transform="datadream", mix="replicate", real_weight=0.8, mix_p=0.2,
    schedule="cosine", warmup=3, min_lr=1e-8, precision="fp16",
)  # fmt: skip
_MAE = Recipe(
    optimizer="adamw", blr=5e-4, weight_decay=0.05, epochs=100, batch=64, tune="full", transform="mae",
    mix="replicate", mix_p=1.0, mixup=0.8, cutmix=1.0, label_smoothing=0.1, schedule="cosine", warmup=5, min_lr=1e-6,
    layer_decay=0.65, drop_path=0.1, precision="fp16",
)  # fmt: skip
_BOB = {
    "clip": replace(_POOLED, tune="lora", head="cosine", lr=1e-4, weight_decay=1e-4),
    "cnn": replace(_POOLED, tune="full", bn="train", lr=1e-3, weight_decay=1e-4),
    "vit": replace(_MAE, real_weight=0.8),
}

RECIPES: dict[str, Mapping[str, Recipe]] = {
    "dalda-paper": DALDA,
    "dalda-official": {
        kind: replace(
            recipe, norm="half", bn="batch_stats" if kind == "cnn" else "frozen", eval="resample6400",
            select="best_on_eval",
        )
        for kind, recipe in DALDA.items()
    },
    "datadream": _BOB,
    "bob": _BOB,
    "mae": {"vit": _MAE},
}  # fmt: skip
"""`datadream` and `bob` train alike: DataDream fixes real_weight to 0.8, BOB sweeps it. Both papers search
learning rate and weight decay; the values here are points of BOB's grids that a sweep should replace."""

GRIDS: dict[str, Mapping[str, Mapping[str, tuple[float, ...]]]] = {
    "bob": {
        "clip": {"lr": (1e-4, 1e-5, 1e-6, 1e-7), "weight_decay": (5e-4, 1e-4), "real_weight": (0.5, 0.8)},
        "cnn": {"lr": (1e-3, 1e-4, 1e-5), "weight_decay": (0.01, 1e-4, 0.0), "real_weight": (0.5, 0.8)},
        "vit": {"blr": (1e-3, 5e-4), "layer_decay": (0.65, 0.75), "real_weight": (0.5, 0.8)},
    },
}
GRIDS["datadream"] = {
    kind: {name: values for name, values in grid.items() if name != "real_weight"}
    for kind, grid in GRIDS["bob"].items()
}
GRIDS["mae"] = {"vit": GRIDS["datadream"]["vit"]}
"""BOB paper, Table 4."""


def choose_recipe(
    name: str | None, kind: str, *, default: Recipe, settings: Mapping[str, Any] | None = None
) -> Recipe:
    """Finds a recipe by its name or file and replaces some of its fields.

    Args:
        name: one of `RECIPES`, a JSON file of fields (with a name under `recipe` to start from), or None.
        kind: of the backbone, one of `KINDS`.
        default: what None, and a file without `recipe`, start from.
        settings: fields to replace.

    Raises:
        FastgenError: for an unknown name, a recipe that this kind of backbone lacks, or bad fields.
    """
    if name is not None and name.endswith(".json"):
        found = read_settings(Path(name))
        start = found.pop("recipe", None)
        if start is not None and start not in RECIPES:
            raise FastgenError(f"{name}: recipe is {start!r}; it must be one of {', '.join(RECIPES)}")
        recipe = with_settings(named_recipe(start, kind) if start else default, found)
    else:
        recipe = named_recipe(name, kind) if name is not None else default
    return with_settings(recipe, settings or {})


def named_recipe(name: str, kind: str) -> Recipe:
    """The recipe of that name for that kind of backbone.

    Raises:
        FastgenError: if there is none.
    """
    if name not in RECIPES:
        raise FastgenError(f"recipe is {name!r}; it must be one of {', '.join(RECIPES)}, or a JSON file of fields")
    if kind not in RECIPES[name]:
        raise FastgenError(f"recipe {name} is for a vision transformer without text (kind vit), got a backbone of "
                           f"kind {kind}; use --recipe bob")  # fmt: skip
    return RECIPES[name][kind]


def grid_points(grid: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """Every combination of a grid's values, the last field fastest."""
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
