"""BOB's bank (arXiv 2510.24078): images of every class in the backgrounds and poses of the whole data set.

For an image of class y a donor is drawn among the real images, and the donor's background and pose, as a pair, go into
the caption of y. Over all images this approximates P(X | do(Y)) = sum_Z P(X | Y, Z) P(Z), the back-door adjustment
over the context Z (section 3.2).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastgen.bank.caption_text import ARTICLES, BOB_TEMPLATE, PLAIN_TEMPLATE, attribute_names, caption_text
from fastgen.bank.captions import Caption, attributes_sha256, read_captions
from fastgen.bank.class_names import ClassNames
from fastgen.bank.tokens import token_limit
from fastgen.bank.write import write_bank
from fastgen.class_words import word_of, words_of
from fastgen.context import context_of_rows
from fastgen.errors import BankError
from fastgen.files import write_jsonl
from fastgen.methods.adapters import lora_adapters, token_adapters
from fastgen.methods.counts import images_per_class
from fastgen.methods.writing import check_choice, finished, method_header
from fastgen.records import Row
from fastgen.row_parts import Adapter, Attrs
from fastgen.seeds import stream

MARGINALIZE = ("dataset", "class", "none")
NONE = ("template", "own")
PAIRING = ("joint", "independent")
DONOR_WEIGHT = ("image", "class")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How the contexts of the images are drawn.

    Attributes:
        marginalize: "dataset": the donor is any real image of any class, the row's own among them; "class": one of the
            row's own class; "none": there is no donor.
        none: what stands in the prompt without a donor: "template", no context at all (DataDream), or "own", the
            captions of the class's own images, one after the other.
        pairing: "joint": all attributes from one donor; "independent": each from a donor of its own, for comparison
            only, because it makes contexts that no image had.
        donor_weight: "image": every image is as likely, so that frequent classes give most contexts; "class": every
            class is.
    """

    marginalize: str = "dataset"
    none: str = "template"
    pairing: str = "joint"
    donor_weight: str = "image"

    def check(self) -> None:
        """Raises BankError if a name is unknown."""
        check_choice("marginalize", self.marginalize, MARGINALIZE)
        check_choice("none", self.none, NONE)
        check_choice("pairing", self.pairing, PAIRING)
        check_choice("donor_weight", self.donor_weight, DONOR_WEIGHT)

    @property
    def has_context(self) -> bool:
        """Whether prompts name a context."""
        return self.marginalize != "none" or self.none == "own"

    def to_json(self) -> dict[str, Any]:
        """What the header records beside `marginalize`: the names that matter to it."""
        if self.marginalize == "none":
            return {"none": self.none}
        return {"pairing": self.pairing, "donor_weight": self.donor_weight}


def write_bob_bank(
    captions: str | Path | Sequence[Caption],
    out: str | Path,
    *,
    classes: Sequence[str] | None = None,
    marginalize: str = "dataset",
    preserve: bool = True,
    none: str = "template",
    pairing: str = "joint",
    donor_weight: str = "image",
    per_class: int | None = None,
    budget: int | None = None,
    copies: int | None = None,
    descriptor: str = "",
    article: str = "literal",
    template: str = BOB_TEMPLATE,
    lora: str | None = None,
    words: bool = False,
    guidance: float | None = 2.0,
    steps: int | None = 50,
    scheduler: str | None = "pndm",
    seed: int = 0,
    seed_mode: str = "per_row",
    training_captions: str | Path | None = None,
    tokenizer: str | Path | None = None,
    name: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Write BOB's bank, or one of the cells of its ablation.

    Args:
        captions: file of `fastgen caption` or of PetWorld, or captions; of the training images only.
        out: path of the bank.
        classes: ordered class names; None takes those of the captions, sorted, as training does.
        marginalize, none, pairing, donor_weight: see `Drawing`.
        preserve: whether the LoRA was (or is to be) trained with the context in its captions. It changes
            `training_captions` and what the bank says about itself, and no prompt.
        per_class: images of each class; 100 when there is no budget.
        budget, copies: for a long tail, see `images_per_class`.
        descriptor: noun for the whole data set, such as "aircraft".
        article: "literal" or "fix", see `caption_text`; it must be that of the training captions.
        template: sentence with {descriptor}, {class} and names of attributes in braces.
        lora: NAME[@SCALE] of the data set's LoRA; every row names it for UNet and text encoder.
        words: whether prompts say the class by the word that `fastgen finetune lora --words` learns for it,
            `<maine_coon>`, which the engine must have; for a text encoder that has never seen the names.
        guidance, steps, scheduler: header's defaults; None leaves them to the engine.
        seed: of donors and noise.
        seed_mode: see `finished`.
        training_captions: file to write, one line per real image, {"file_name", "text"}: what the LoRA is trained with.
        tokenizer: engine or model folder whose tokens are counted; None takes CLIP's.
        name: of the bank; the file name without its ending when None.
        provenance: added to what the header records.
        say: is told what was drawn, and whether class and context are independent in it.

    Returns:
        The path.

    Raises:
        BankError: arguments or captions cannot be used: unknown names, an attribute that names a class, a class
            without donors, a prompt that is longer than the text encoder reads.
    """
    drawing = Drawing(marginalize=marginalize, none=none, pairing=pairing, donor_weight=donor_weight)
    drawing.check()
    wording = Wording(template=template, descriptor=descriptor, article=article, words=words)
    wording.check()
    _check_lora(lora)
    names = attribute_names(template)
    found = read_captions(captions, attributes=names) if isinstance(captions, str | Path) else list(captions)
    classes = tuple(classes) if classes is not None else tuple(sorted({one.class_ for one in found}))
    donors = _by_class(found, classes, drawing)
    if words:
        words_of(classes)  # refuses classes that would share one
    per_class = 100 if per_class is None and budget is None else per_class
    real = [len(donors[class_]) for class_ in classes]
    counts = images_per_class(real, per_class=per_class, budget=budget, copies=copies)
    made = Maker(classes, donors, drawing, wording, lora, seed)
    rows = list(finished(made.rows(counts), seed=seed, seed_mode=seed_mode))
    _check_length(rows, tokenizer)
    about = {
        "source": "BOB, arXiv 2510.24078", "marginalization": marginalize, "preserve": preserve,
        **drawing.to_json(), **wording.to_json(drawing),
        "attributes": {"images": len(found), "names": list(names), "sha256": attributes_sha256(found)},
        "per_class": per_class, "budget": budget, "copies": copies, "seed": seed, "seed_mode": seed_mode,
        **(provenance or {}),
    }  # fmt: skip
    defaults: dict[str, Any] = {"mode": "t2i", "guidance_scale": guidance, "steps": steps, "scheduler": scheduler}
    defaults |= {"domain": descriptor or None, "tags": {"marginalize": marginalize, "preserve": preserve}}
    header = method_header(out, classes, method="bob", defaults=defaults, provenance=about, name=name)
    path = write_bank(out, header, rows)
    _say_what(say, rows, counts, classes)
    if training_captions is not None:
        lines = [{"file_name": c.file, "text": wording.text(c.class_, dict(c.attributes) if preserve else None)}
                 for c in found]  # fmt: skip
        write_jsonl(training_captions, lines)
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """The sentence of an image. Attributes as `write_bob_bank`."""

    template: str
    descriptor: str
    article: str
    words: bool

    def check(self) -> None:
        """Raises BankError if the article is none of the two."""
        check_choice("article", self.article, ARTICLES)

    def text(self, class_: str, attributes: dict[str, str] | None) -> str:
        """The prompt or caption; without attributes DataDream's."""
        chosen = PLAIN_TEMPLATE if attributes is None else self.template
        shown = word_of(class_) if self.words else class_
        return caption_text(chosen, shown, attributes, descriptor=self.descriptor, article=self.article)

    def to_json(self, drawing: Drawing) -> dict[str, Any]:
        """What the header records."""
        template = self.template if drawing.has_context else PLAIN_TEMPLATE
        words = {"words": True} if self.words else {}
        return {"template": template, "descriptor": self.descriptor, "article": self.article, **words}


@dataclass(frozen=True, slots=True)
class Maker:
    """Draws the rows of a bank.

    Attributes:
        classes: ordered class names.
        donors: captions of every class.
        drawing: how contexts are drawn.
        wording: how prompts say it.
        lora: of every row, or None.
        seed: of the bank; every class has a stream of its own, which its name decides.
    """

    classes: Sequence[str]
    donors: dict[str, list[Caption]]
    drawing: Drawing
    wording: Wording
    lora: str | None
    seed: int

    def rows(self, counts: Sequence[int]) -> Iterator[Row]:
        """Yield counts[i] rows of class i, without id and seed."""
        label_of = {class_: label for label, class_ in enumerate(self.classes)}
        for label, class_ in enumerate(self.classes):
            adapters = self._adapters(class_, label)
            if not self.drawing.has_context:
                prompt = self.wording.text(class_, None)
                for _ in range(counts[label]):
                    yield Row(class_=class_, label=label, prompt=prompt, adapters=adapters)
                continue
            for donor, values, more in self._drawn(class_, counts[label]):
                context = {name: values[name] for name in ("background", "pose") if name in values}
                yield Row(
                    class_=class_,
                    label=label,
                    prompt=self.wording.text(class_, values),
                    adapters=adapters,
                    attrs=Attrs(**context, donor_id=donor.file, donor_label=label_of[donor.class_]),
                    tags=more | {name: value for name, value in values.items() if name not in context},
                )

    def _adapters(self, class_: str, label: int) -> tuple[Adapter, ...]:
        word = token_adapters("{word}", class_, label) if self.wording.words else []
        return (*lora_adapters(self.lora, ("unet", "text")), *word)

    def _drawn(self, class_: str, count: int) -> Iterator[tuple[Caption, dict[str, str], dict[str, Any]]]:
        """Yield `count` times a donor, the values for the prompt, and what else is worth keeping."""
        rng = stream(self.seed, f"bob/{class_}")
        pool = [self.donors[class_]] if self.drawing.marginalize != "dataset" else list(self.donors.values())
        if self.drawing.marginalize == "none":
            own = self.donors[class_]
            yield from ((own[i % len(own)], dict(own[i % len(own)].attributes), {}) for i in range(count))
            return
        for _ in range(count):
            donor = self._donor(pool, rng)
            values, more = dict(donor.attributes), {}
            if self.drawing.pairing == "independent":
                others = {name: self._donor(pool, rng) for name in list(values)[1:]}
                values |= {name: other.attributes[name] for name, other in others.items()}
                more = {f"{name}_donor_id": other.file for name, other in others.items()}
            yield donor, values, more

    def _donor(self, pool: Sequence[Sequence[Caption]], rng: np.random.Generator) -> Caption:
        """Draw one image, with replacement: all images alike, or first a class and then one of its images."""
        if self.drawing.donor_weight == "class":
            there = [images for images in pool if images]
            images = there[int(rng.integers(len(there)))]
            return images[int(rng.integers(len(images)))]
        number = int(rng.integers(sum(map(len, pool))))
        for images in pool:
            if number < len(images):
                return images[number]
            number -= len(images)
        raise AssertionError("the number is below the sum")


def _check_lora(lora: str | None) -> None:
    """Refuse a LoRA for each class."""
    if lora is not None and ("{class" in lora or "{label" in lora):
        allowed = "one LoRA of the whole data set: that of a single class has never seen the contexts of the others"
        raise BankError([f"lora: got {lora!r}, allowed: {allowed}"])


def _by_class(captions: Sequence[Caption], classes: Sequence[str], drawing: Drawing) -> dict[str, list[Caption]]:
    """Sort captions by class and refuse what would spoil the bank."""
    found: dict[str, list[Caption]] = {class_: [] for class_ in classes}
    names = ClassNames(classes)
    problems = []
    for caption in captions:
        if caption.class_ not in found:
            problems.append(f"{caption.file}: class: got {caption.class_!r}, allowed: one of {len(classes)} classes")
            continue
        found[caption.class_].append(caption)
        for name, value in caption.attributes.items():
            if said := names.named_in(value):
                allowed = f"words that name no class (this names {', '.join(said)}): shorten it, or caption it again"
                problems.append(f"{caption.file}: {name}: got {value!r}, allowed: {allowed}")
    empty = [class_ for class_, images in found.items() if not images]
    if drawing.has_context and drawing.marginalize != "dataset" and empty:
        problems.append(f"marginalize {drawing.marginalize}: no captions of {', '.join(empty)}; each class needs some")
    if problems:
        raise BankError(problems)
    return found


def _check_length(rows: Sequence[Row], tokenizer: str | Path | None) -> None:
    """Refuse prompts whose end, the pose, would not be read."""
    tokens = token_limit(tokenizer)
    counts = {prompt: tokens.count(prompt) for prompt in {row.prompt for row in rows}}
    long = [row for row in rows if counts[row.prompt] > tokens.limit]
    if long:
        raise BankError(
            [
                f"row {row.id}: prompt: got {counts[row.prompt]} tokens, allowed: {tokens.limit}, for more are "
                f"not read; shorten the attributes of {row.attrs.donor_id if row.attrs else row.class_}"
                for row in long
            ]
        )


def _say_what(say: Callable[[str], None], rows: Sequence[Row], counts: Sequence[int], classes: Sequence[str]) -> None:
    say(f"{len(rows)} rows of {len(classes)} classes, {min(counts)} to {max(counts)} each")
    for what, found in context_of_rows(row.to_json() for row in rows).items():
        say(f"class and {what} {found}" if what == "context" else f"class and class of the donor {found}")
