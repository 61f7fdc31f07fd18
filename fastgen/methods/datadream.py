"""DataDream's bank (arXiv 2407.10910): one sentence per class for a Stable Diffusion with a LoRA of the real images."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fastgen.bank.caption_text import PLAIN_TEMPLATE, attribute_names, caption_text
from fastgen.errors import BankError
from fastgen.methods.adapters import lora_adapters
from fastgen.methods.counts import images_per_class
from fastgen.methods.real import find_real
from fastgen.methods.writing import method_header, write_method_bank
from fastgen.records import Row


def write_datadream_bank(
    out: str | Path,
    *,
    classes: Sequence[str] | None = None,
    refs: str | Path | None = None,
    shots: int | None = None,
    only: Sequence[str] = (),
    per_class: int | None = None,
    budget: int | None = None,
    copies: int | None = None,
    descriptor: str = "",
    template: str = PLAIN_TEMPLATE,
    lora: str | None = None,
    guidance: float | None = 2.0,
    steps: int | None = 50,
    scheduler: str | None = "pndm",
    seed: int = 0,
    seed_mode: str = "per_row",
    name: str | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Write a bank of text-to-image rows, all of a class with the same prompt.

    Args:
        out: path of the bank.
        classes: ordered class names; None takes the folders of `refs`.
        refs, shots: the real images, as for `find_real`; needed for classes or with a budget only.
        only: classes that get rows; none means all. With one LoRA per class, a bank of one class goes with an engine
            that has its LoRA, and still counts labels in the whole list.
        per_class: images of each class; 100 when there is no budget.
        budget, copies: for a long tail, see `images_per_class`.
        descriptor: noun for the whole data set, such as "aircraft"; the paper's template has none, its code has.
        template: sentence with {class} and {descriptor}.
        lora: NAME[@SCALE], named by every row for UNet and text encoder; `{class}` and `{label}` in it make one LoRA
            per class.
        guidance, steps, scheduler: header's defaults; None leaves them to the engine.
        seed: of the noise.
        seed_mode: see `finished`; DataDream's code does "per_class_reset".
        name: of the bank; the file name without its ending when None.
        say: is told what was written.

    Returns:
        The path.

    Raises:
        BankError, ReferenceImageError: arguments cannot be used.
    """
    if more := attribute_names(template):
        raise BankError([f"template: got {{{more[0]}}} in {template!r}, allowed: {{class}} and {{descriptor}}"])
    real = None if refs is None else find_real(refs, out=out, classes=classes, shots=shots, seed=seed)
    if classes is None and real is None or budget is not None and real is None:
        raise BankError(["refs: got none, allowed: the folder of real images, for the classes or with a budget"])
    names = tuple(classes) if classes is not None else real.classes if real is not None else ()
    if unknown := [class_ for class_ in only if class_ not in names]:
        raise BankError([f"only: got {unknown[0]!r}, allowed: one of the {len(names)} classes"])
    per_class = 100 if per_class is None and budget is None else per_class
    real_counts = real.counts if real is not None else [0] * len(names)
    counts = images_per_class(real_counts, per_class=per_class, budget=budget, copies=copies)

    def rows() -> Iterator[Row]:
        for label, class_ in enumerate(names):
            if only and class_ not in only:
                continue
            prompt = caption_text(template, class_, descriptor=descriptor)
            adapters = tuple(lora_adapters(lora, ("unet", "text"), class_=class_, label=label))
            for _ in range(counts[label]):
                yield Row(class_=class_, label=label, prompt=prompt, adapters=adapters)

    provenance = {
        "source": "DataDream, arXiv 2407.10910", "template": template, "descriptor": descriptor, "only": list(only),
        "per_class": per_class, "budget": budget, "copies": copies, "seed": seed, "seed_mode": seed_mode,
    }  # fmt: skip
    defaults = {"mode": "t2i", "guidance_scale": guidance, "steps": steps, "scheduler": scheduler}
    header = method_header(
        out, names, method="datadream", defaults={**defaults, "domain": descriptor or None}, provenance=provenance,
        name=name,
    )  # fmt: skip
    path = write_method_bank(out, header, rows(), seed=seed, seed_mode=seed_mode)
    say(f"{sum(counts[i] for i, class_ in enumerate(names) if not only or class_ in only)} rows in {path}")
    return path
