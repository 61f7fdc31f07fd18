"""Diff-Aug, Diff-Gen and Diff-Mix (arXiv 2403.19600): images of a class from its learned word, and from real images.

All three share one fine-tuned Stable Diffusion: a LoRA of the UNet and a learned word for each class.

diff-gen   text to image
diff-aug   image to image from a real image of the same class
diff-mix   image to image from a real image of any class towards the row's class; the label is soft
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastgen.errors import BankError
from fastgen.methods.adapters import check_token, filled, lora_adapters, token_adapters
from fastgen.methods.counts import images_per_class
from fastgen.methods.real import Real, find_real, run_advice
from fastgen.methods.writing import check_choice, finished, method_header, write_method_bank
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
    check_choice("method", method, METHODS)
    _check(strength, gamma, soft_scaler)
    real = find_real(refs, out=out, classes=classes, shots=shots, seed=seed)
    check_token(token, real.classes)
    per_class = 100 if (per_class, per_real, budget) == (None, None, None) else per_class
    counts = images_per_class(real.counts, per_class=per_class, per_real=per_real, budget=budget, copies=copies)

    def rows() -> Iterator[Row]:
        for label, class_ in enumerate(real.classes):
            rng = stream(seed, f"{method}/{class_}")
            plain = Row(
                class_=class_,
                label=label,
                prompt=class_prompt(token, class_, label, superclass),
                adapters=class_adapters(lora, token, class_, label),
            )
            for _ in range(counts[label]):
                yield plain if method == "diff-gen" else _edited(plain, real, rng)

    def _edited(plain: Row, real: Real, rng: np.random.Generator) -> Row:
        assert plain.label is not None
        source = plain.label if method == "diff-aug" else int(rng.integers(len(real.classes)))
        image = real.images[source][int(rng.integers(len(real.images[source])))]
        s = float(strength[int(rng.integers(len(strength)))])
        labels = soft_labels(source, plain.label, s, gamma=gamma, scaler=soft_scaler) if method == "diff-mix" else ()
        more: dict[str, Any] = {"ref": image.as_ref(("init",)), "strength": s, "labels": labels}
        return Row(class_=plain.class_, label=plain.label, prompt=plain.prompt, adapters=plain.adapters, **more)

    mix = {"gamma": gamma, "soft_scaler": soft_scaler} if method == "diff-mix" else {}
    edit = {} if method == "diff-gen" else {"strength": list(strength)}
    provenance = {
        "source": "Diff-Mix, arXiv 2403.19600", "token": token, "superclass": superclass, **edit, **mix, "shots": shots,
        "per_class": per_class, "per_real": per_real, "budget": budget, "copies": copies, "seed": seed,
        "seed_mode": seed_mode,
    }  # fmt: skip
    defaults = {
        "refs": None if method == "diff-gen" else real.refs, "mode": "t2i" if method == "diff-gen" else "img2img",
        "guidance_scale": guidance, "steps": steps, "scheduler": scheduler, "domain": superclass or None,
    }  # fmt: skip
    header = method_header(out, real.classes, method=method, defaults=defaults, provenance=provenance, name=name)
    path = write_method_bank(out, header, finished(rows(), seed=seed, seed_mode=seed_mode))
    say(f"{sum(counts)} rows; make them: {run_advice(real, out, refs)}")
    return path


def class_prompt(token: str, class_: str, label: int, superclass: str) -> str:
    """`a photo of a <fox_sparrow> bird`."""
    return f"a photo of a {filled(token, class_, label)} {superclass}".strip()


def class_adapters(lora: str | None, token: str, class_: str, label: int) -> tuple[Adapter, ...]:
    """The LoRA of the UNet (the text encoder has only learned words), and the class's word."""
    return (*lora_adapters(lora, ("unet",)), *token_adapters(token, class_, label))


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


def _check(strength: Sequence[float], gamma: float, soft_scaler: float) -> None:
    problems = []
    if not strength or not all(0 < s <= 1 for s in strength):
        problems.append(f"strength: got {list(strength)}, allowed: numbers above 0 up to 1")
    if not 0 <= gamma <= 100:
        problems.append(f"gamma: got {gamma!r}, allowed: a number from 0 to 100")
    if not 0 < soft_scaler <= 1:
        problems.append(f"soft_scaler: got {soft_scaler!r}, allowed: a number above 0 up to 1")
    if problems:
        raise BankError(problems)
