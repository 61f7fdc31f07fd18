"""Diff-Aug, Diff-Gen and Diff-Mix (arXiv 2403.19600): images of a class from its learned word, and from real images.

All three share one fine-tuned Stable Diffusion: a LoRA of the UNet and a learned word for each class.

diff-gen   text to image
diff-aug   image to image from a real image of the same class
diff-mix   image to image from a real image of any class towards the row's class; the label is soft
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastgen.errors import BankError
from fastgen.methods.adapters import check_token, filled, lora_adapters, token_adapters
from fastgen.methods.counts import images_per_class
from fastgen.methods.real import Real, find_real, run_advice
from fastgen.methods.writing import check_choice, method_header, write_method_bank
from fastgen.records import Row
from fastgen.row_parts import Adapter
from fastgen.seeds import stream

METHODS = ("diff-aug", "diff-gen", "diff-mix")
STRENGTHS = (0.3, 0.5, 0.7, 0.9)
"""What "uniform" stands for in the official code."""
TOKEN = "{word}"


def write_diff_bank(
    method: str,
    out: str | Path,
    *,
    refs: str | Path,
    classes: Sequence[str] | None = None,
    shots: int | None = None,
    superclass: str = "",
    token: str = TOKEN,
    lora: str | None = None,
    strength: Sequence[float] = (0.8,),
    gamma: float = 0.8,
    soft_scaler: float = 1.0,
    per_class: int | None = None,
    per_real: int | None = None,
    budget: int | None = None,
    copies: int | None = None,
    guidance: float | None = 7.5,
    steps: int | None = 25,
    scheduler: str | None = "dpmsolver++",
    seed: int = 0,
    seed_mode: str = "per_row",
    name: str | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Write the bank of one of the three methods.

    Args:
        method: one of `METHODS`.
        out: path of the bank.
        refs, classes, shots: the real training images, see `find_real`.
        superclass: noun that ends every prompt, such as "bird"; may be empty.
        token: the class in prompts. "{word}" is the word that `fastgen finetune` learns for it, `<maine_coon>`; any
            other with {label}, its number, is possible too. Rows name the word as an adapter that the engine must
            have. "{class}" is the plain name, and no adapter.
        lora: NAME[@SCALE] of the UNet's LoRA, named by every row.
        strength: of image to image; of several, each row draws one. Of 25 steps, strength 0.7 runs int(17.5) = 17.
        gamma: of diff-mix, g >= 0: the label is s^g of the row's class and 1 - s^g of the source's, s the strength.
        soft_scaler: of diff-mix, 0 to 1: factor of both; 0.9 for CUB, Cars and Aircraft in the official code, 1 for
            Pets, Flowers and long tails.
        per_class, per_real, budget, copies: images of each class (for diff-mix as target), see `images_per_class`;
            100 per class when nothing is given.
        guidance, steps, scheduler: header's defaults; None leaves them to the engine.
        seed: of the choice of images, strengths and noise.
        seed_mode: see `finished`.
        name: of the bank; the file name without its ending when None.
        say: is told what was written, and how to run it.

    Returns:
        The path.

    Raises:
        BankError, ReferenceImageError: arguments cannot be used.
    """
    edit = Edit(method=method, strength=tuple(strength), gamma=gamma, soft_scaler=soft_scaler)
    edit.check()
    real = find_real(refs, out=out, classes=classes, shots=shots, seed=seed)
    word = ClassWord(token=token, superclass=superclass, lora=lora)
    word.check(real.classes)
    per_class = 100 if (per_class, per_real, budget) == (None, None, None) else per_class
    counts = images_per_class(real.counts, per_class=per_class, per_real=per_real, budget=budget, copies=copies)
    provenance = {
        "source": "Diff-Mix, arXiv 2403.19600", "token": token, "superclass": superclass, **edit.to_json(),
        "shots": shots, "per_class": per_class, "per_real": per_real, "budget": budget, "copies": copies, "seed": seed,
        "seed_mode": seed_mode,
    }  # fmt: skip
    defaults = {
        "refs": real.refs if edit.has_source else None, "mode": "img2img" if edit.has_source else "t2i",
        "guidance_scale": guidance, "steps": steps, "scheduler": scheduler, "domain": superclass or None,
    }  # fmt: skip
    header = method_header(out, real.classes, method=method, defaults=defaults, provenance=provenance, name=name)
    rows = _rows(real, counts, edit, word, seed)
    path = write_method_bank(out, header, rows, seed=seed, seed_mode=seed_mode)
    say(f"{sum(counts)} rows; make them: {run_advice(real, out, refs)}")
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """What a method does with real images. Attributes as `write_diff_bank`."""

    method: str
    strength: tuple[float, ...]
    gamma: float
    soft_scaler: float

    @property
    def has_source(self) -> bool:
        """Whether images start from real ones."""
        return self.method != "diff-gen"

    def check(self) -> None:
        """Raises BankError if a value is not allowed."""
        check_choice("method", self.method, METHODS)
        problems = []
        if not self.strength or not all(0 < s <= 1 for s in self.strength):
            problems.append(f"strength: got {list(self.strength)}, allowed: numbers above 0 up to 1")
        if not 0 <= self.gamma <= 100:
            problems.append(f"gamma: got {self.gamma!r}, allowed: a number from 0 to 100")
        if not 0 < self.soft_scaler <= 1:
            problems.append(f"soft_scaler: got {self.soft_scaler!r}, allowed: a number above 0 up to 1")
        if problems:
            raise BankError(problems)

    def to_json(self) -> dict[str, Any]:
        """What the header records: the values that matter to the method."""
        strength = {"strength": list(self.strength)} if self.has_source else {}
        mix = {"gamma": self.gamma, "soft_scaler": self.soft_scaler} if self.method == "diff-mix" else {}
        return strength | mix

    def apply(self, plain: Row, real: Real, rng: np.random.Generator) -> Row:
        """Draw a real image and a strength for a row; for diff-mix also its soft label."""
        assert plain.label is not None
        source = plain.label if self.method == "diff-aug" else int(rng.integers(len(real.classes)))
        image = real.images[source][int(rng.integers(len(real.images[source])))]
        s = float(self.strength[int(rng.integers(len(self.strength)))])
        row = replace(plain, ref=image.as_ref(("init",)), strength=s)
        if self.method != "diff-mix":
            return row
        return replace(row, labels=soft_labels(source, plain.label, s, gamma=self.gamma, scaler=self.soft_scaler))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassWord:
    """How prompts name a class, and what the engine must have for it. Attributes as `write_diff_bank`."""

    token: str
    superclass: str
    lora: str | None

    def check(self, classes: Sequence[str]) -> None:
        """Raise FastgenError where two classes would have the same word, or a class none."""
        check_token(self.token, classes)

    def prompt(self, class_: str, label: int) -> str:
        """The prompt of a class."""
        return class_prompt(self.token, class_, label, self.superclass)

    def adapters(self, class_: str, label: int) -> tuple[Adapter, ...]:
        """The LoRA of the UNet (the text encoder has only learned words), and the class's word."""
        return (*lora_adapters(self.lora, ("unet",)), *token_adapters(self.token, class_, label))


def _rows(real: Real, counts: Sequence[int], edit: Edit, word: ClassWord, seed: int) -> Iterator[Row]:
    """Yield counts[i] rows of class i, without id and seed; every class has a stream of its own."""
    for label, class_ in enumerate(real.classes):
        rng = stream(seed, f"{edit.method}/{class_}")
        prompt, adapters = word.prompt(class_, label), word.adapters(class_, label)
        plain = Row(class_=class_, label=label, prompt=prompt, adapters=adapters)
        for _ in range(counts[label]):
            yield edit.apply(plain, real, rng) if edit.has_source else plain


def class_prompt(token: str, class_: str, label: int, superclass: str) -> str:
    """`a photo of a <fox_sparrow> bird`."""
    return f"a photo of a {filled(token, class_, label)} {superclass}".strip()


def soft_labels(
    source: int, target: int, strength: float, *, gamma: float, scaler: float
) -> tuple[tuple[int, float], ...]:
    """Diff-Mix's label: 1 - s^g of the source and s^g of the target, both times the scaler.

    Args:
        source: label of the start image.
        target: label of the prompt.
        strength: s, of image to image, in (0, 1].
        gamma: g >= 0.
        scaler: 0 to 1; the weights sum to it.

    Returns:
        (label, weight) by label; one entry when both are the same class.
    """
    share = strength**gamma
    weights = {source: 0.0, target: 0.0}
    weights[source] += scaler * (1 - share)
    weights[target] += scaler * share
    return tuple(sorted(weights.items()))
