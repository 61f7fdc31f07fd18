"""Recipes of LoRA fine-tuning: what BOB, DataDream, Diff-Mix and Real-Fake trained with."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from fastgen.errors import FastgenError
from fastgen.finetune import wording
from fastgen.finetune.optimize import SCHEDULES, Optimizer
from fastgen.finetune.pictures import FITS

SCOPES = ("dataset", "class")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything about a LoRA fine-tuning that is not data or machine.

    Attributes:
        preserve: captions with background and pose (BOB), else without (DataDream); not with a template.
        template: caption; placeholders are {class}, {descriptor} and the attributes of the caption file.
        descriptor: noun of the data set, such as pet; "" for none.
        article: "literal" keeps "a aircraft", "fix" writes "an aircraft".
        scope: one LoRA for the "dataset", or one per "class".
        epochs, steps: how long; steps win over epochs.
        batch: pictures of a step, over all processes and pieces.
        lr, schedule, warmup: peak of AdamW, "constant" or "cosine", steps of linear growth.
        rank, alpha: of the LoRA; its scale is alpha / rank.
        text_encoder: whether the text encoder gets a LoRA too.
        words: learn a word per class with the LoRA; captions then say <class_name> for {class}.
        init_word: what the words start from.
        fit, flip: "crop" or "squash" to the model's size; mirror at random.
        min_snr: gamma of min-SNR weights; None for none.
        dist_match: weight of Real-Fake's matching term.
    """

    preserve: bool = True
    template: str | None = None
    descriptor: str | None = None
    article: str = "literal"
    scope: str = "dataset"
    epochs: int = 400
    steps: int | None = None
    batch: int = 80
    lr: float = 1e-4
    schedule: str = "cosine"
    warmup: int = 100
    rank: int = 16
    alpha: float | None = None
    text_encoder: bool = True
    words: bool = False
    init_word: str = "the"
    fit: str = "crop"
    flip: bool = False
    min_snr: float | None = None
    dist_match: float = 0.0

    @property
    def caption_template(self) -> str:
        """The template that captions are filled into."""
        return self.template or (wording.BOB if self.preserve else wording.DATADREAM)

    @property
    def needed(self) -> tuple[str, ...]:
        """Attributes that every picture needs."""
        return tuple(n for n in wording.placeholders(self.caption_template) if n not in ("class", "descriptor"))

    def optimizer(self, steps_per_epoch: int) -> Optimizer:
        """Return the optimiser; card and code clip at 1.0 and decay by 0.01."""
        steps = self.steps or self.epochs * steps_per_epoch
        return Optimizer(steps=steps, lr=self.lr, schedule=self.schedule, warmup=self.warmup)

    def to_json(self) -> dict[str, Any]:
        """Return what decides the weights."""
        return {**asdict(self), "template": self.caption_template, "alpha": self.alpha or float(self.rank)}


RECIPES = {
    "bob": Recipe(),
    "datadream": Recipe(preserve=False, scope="class", epochs=200, batch=8),
    "diff-mix": Recipe(
        template=wording.DIFF_MIX, text_encoder=False, words=True, rank=10, lr=5e-5, schedule="constant", warmup=0,
        steps=35_000, batch=8, flip=True,
    ),
    "real-fake": Recipe(
        template=wording.REAL_FAKE, text_encoder=False, rank=4, schedule="constant", warmup=0, epochs=100, batch=8,
        flip=True, min_snr=5.0, dist_match=0.003,
    ),
}  # fmt: skip
"""Profile -> recipe. Diff-Mix: 2 pictures on each of 4 GPUs. DataDream and Real-Fake: 8 on one."""


def recipe_of(profile: str, changes: Mapping[str, Any]) -> Recipe:
    """Return a profile's recipe with some fields changed; a change to None changes nothing.

    Raises:
        FastgenError: an unknown profile or field, or a value that cannot be.
    """
    if profile not in RECIPES:
        raise FastgenError(f"profile is {profile!r}; it must be one of {', '.join(RECIPES)}")
    known = [field.name for field in fields(Recipe)]
    unknown = sorted(changes.keys() - set(known))
    if unknown:
        raise FastgenError(f"got {', '.join(unknown)}; a recipe has {', '.join(known)}")
    given = {name: value for name, value in changes.items() if value is not None}
    if "epochs" in given and "steps" in given:
        raise FastgenError("got epochs and steps; give one of them")
    if "epochs" in given:
        given["steps"] = None
    recipe = replace(RECIPES[profile], **given)
    _check(recipe)
    return recipe


def _check(recipe: Recipe) -> None:
    for name, allowed in (("scope", SCOPES), ("schedule", SCHEDULES), ("fit", FITS), ("article", wording.ARTICLES)):
        if getattr(recipe, name) not in allowed:
            raise FastgenError(f"{name} is {getattr(recipe, name)!r}; it must be one of {', '.join(allowed)}")
    for name in ("epochs", "steps", "batch", "rank"):
        value = getattr(recipe, name)
        if value is not None and value < 1:
            raise FastgenError(f"{name} is {value}; it must be at least 1")
    for name in ("lr", "alpha", "min_snr"):
        value = getattr(recipe, name)
        if value is not None and not 0 < value < float("inf"):
            raise FastgenError(f"{name} is {value}; it must be above 0")
    if recipe.dist_match < 0 or (recipe.dist_match and recipe.min_snr is None):
        raise FastgenError(
            f"dist_match is {recipe.dist_match}; it must be 0 or more, and above 0 it needs min_snr (its weights)"
        )
    if "descriptor" in wording.placeholders(recipe.caption_template) and recipe.descriptor is None:
        raise FastgenError(
            "the captions name what all classes are: give --descriptor aircraft, bird, car, flower, pet, ... or "
            "--descriptor '' for none"
        )
