"""Diff-II's bank (Wang and Chen, CVPR 2025): images between two real ones of a class, first in a new setting."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastgen.errors import BankError
from fastgen.methods.counts import images_per_class
from fastgen.methods.diffusion_edit import TOKEN, ClassWord
from fastgen.methods.real import Real, find_real, run_advice
from fastgen.methods.writing import method_header, write_method_bank
from fastgen.records import Row
from fastgen.row_parts import Init
from fastgen.seeds import stream


def write_diff_ii_bank(
    out: str | Path,
    *,
    refs: str | Path,
    suffixes: Sequence[str],
    classes: Sequence[str] | None = None,
    shots: int | None = None,
    superclass: str = "",
    token: str = TOKEN,
    lora: str | None = None,
    switch: float = 0.3,
    inv_steps: int = 200,
    per_class: int | None = None,
    per_real: int | None = None,
    budget: int | None = None,
    copies: int | None = None,
    guidance: float | None = 7.5,
    steps: int | None = 25,
    scheduler: str | None = "ddim",
    seed: int = 0,
    seed_mode: str = "per_row",
    name: str | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Write Diff-II's bank.

    A row draws an unordered pair of different images of its class. Both are inverted by DDIM under the class's prompt
    and without guidance; the image starts from a point drawn uniformly on the circle through both. The share `switch`
    of the steps, the early and noisy ones, has the class's prompt with a suffix, the rest the class's prompt alone. A
    class with one image has no pair: its rows start from the inversion of that image, with one suffix after the other,
    for only the suffix tells them apart.

    Args:
        out: path of the bank.
        refs, classes, shots: the real training images, see `find_real`.
        suffixes: settings without a class, such as "on a branch"; each row draws one.
        superclass, token, lora: as for `write_diff_bank`.
        switch: s, 0 (the suffix is never used) to 1 (always); the paper: 0.3 for 5 shots and 0.1 for 10 of Cars and
            Pets, 1 for Aircraft and CUB.
        inv_steps: of the inversion, 1 to 1000.
        per_class, per_real, budget, copies: see `images_per_class`; 5 for each real image when nothing is given.
        guidance, steps, scheduler: header's defaults; None leaves them to the engine.
        seed: of pairs, suffixes, points on the circle and noise.
        seed_mode: see `finished`.
        name: of the bank; the file name without its ending when None.
        say: is told what was written, and how to run it.

    Returns:
        The path.

    Raises:
        BankError, ReferenceImageError: arguments cannot be used.
    """
    suffixes = _checked_suffixes(suffixes, switch)
    real = find_real(refs, out=out, classes=classes, shots=shots, seed=seed)
    word = ClassWord(token=token, superclass=superclass, lora=lora)
    word.check(real.classes)
    per_real = 5 if (per_class, per_real, budget) == (None, None, None) else per_real
    counts = images_per_class(real.counts, per_class=per_class, per_real=per_real, budget=budget, copies=copies)
    provenance = {
        "source": "Diff-II, Wang and Chen, CVPR 2025", "token": token, "superclass": superclass, "suffixes": suffixes,
        "switch": switch, "inv_steps": inv_steps, "shots": shots, "per_class": per_class, "per_real": per_real,
        "budget": budget, "copies": copies, "seed": seed, "seed_mode": seed_mode,
        "without_pair": [class_ for class_, count in zip(real.classes, real.counts, strict=True) if count == 1],
    }  # fmt: skip
    defaults = {"refs": real.refs, "guidance_scale": guidance, "steps": steps, "scheduler": scheduler}
    header = method_header(
        out, real.classes, method="diff-ii", defaults={**defaults, "domain": superclass or None},
        provenance=provenance, name=name,
    )  # fmt: skip
    maker = Maker(real=real, suffixes=suffixes, word=word, switch=float(switch), inv_steps=inv_steps, seed=seed)
    path = write_method_bank(out, header, maker.rows(counts), seed=seed, seed_mode=seed_mode)
    say(f"{sum(counts)} rows; make them: {run_advice(real, out, refs)}")
    if without := real.counts.count(1):
        say(
            f"classes with one image, which have no pair: {without}; their rows start from its inversion and differ in "
            f"the suffix only, of which there are {len(suffixes)}"
        )
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """Draws the rows of a bank; every class has a stream of its own. Attributes as `write_diff_ii_bank`."""

    real: Real
    suffixes: Sequence[str]
    word: ClassWord
    switch: float
    inv_steps: int
    seed: int

    def rows(self, counts: Sequence[int]) -> Iterator[Row]:
        """Yield counts[i] rows of class i, without id and seed."""
        for label, class_ in enumerate(self.real.classes):
            rng = stream(self.seed, f"diff-ii/{class_}")
            images = self.real.images[label]
            late, adapters = self.word.prompt(class_, label), self.word.adapters(class_, label)
            for k in range(counts[label]):
                pair = rng.choice(len(images), size=2, replace=False) if len(images) > 1 else (0, 0)
                first, second = (images[int(i)].id for i in sorted(pair))
                setting = int(rng.integers(len(self.suffixes))) if first != second else k % len(self.suffixes)
                yield Row(
                    class_=class_,
                    label=label,
                    prompt=f"{late} {self.suffixes[setting]}",
                    prompt_late=late,
                    switch=self.switch,
                    mode="latent",
                    init=Init(kind="circle", refs=(first, second), inv_steps=self.inv_steps),
                    adapters=adapters,
                )


def _checked_suffixes(suffixes: Sequence[str], switch: float) -> list[str]:
    """The suffixes that say something."""
    found = [suffix.strip() for suffix in suffixes if suffix.strip()]
    if not found:
        raise BankError(["suffixes: got none, allowed: at least one setting, such as 'on a branch'"])
    if not 0 <= switch <= 1:
        raise BankError([f"switch: got {switch!r}, allowed: a number from 0 to 1"])
    return found
