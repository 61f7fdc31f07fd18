"""What is fine-tuned and what is generated: the cells of the ablation and the methods beside it.

BOB, arXiv 2510.24078. The classes are PetWorld's 12 novel breeds, which neither the embedded generator nor its CLIP has
seen.
"""

from dataclasses import dataclass
from typing import Any

SHOTS = 10
"""Real pictures of a class, as in the paper's ablation."""
LONG_TAIL = 20
"""Real pictures of the most frequent class of the long tail; the rarest has one."""
BUDGET, COPIES = 40, 2
"""Of the long tail: images of each class, among them so many copies of each real one; 200 and 5 or 6 in the paper."""
GROUPS = (8, 3)
"""Many: more than 8 real pictures; few: fewer than 3."""
STEPS = (50, 200)
"""Of the fine-tunings; the last one is that of all other arms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """One fine-tuning.

    Attributes:
        name: of its folder.
        profile: of `fastgen finetune lora`.
        preserve: whether the captions name background and pose; None for a profile with a template of its own.
        steps: of training.
        split: real pictures: `confounded` or `long-tail`.
    """

    name: str
    profile: str = "bob"
    preserve: bool | None = None
    steps: int = STEPS[-1]
    split: str = "confounded"


BOB = Lora(name="bob", preserve=True)
DATADREAM = Lora(name="datadream", preserve=False)
WORDS = Lora(name="words", profile="diff-mix")
LONG = Lora(name="bob-long-tail", preserve=True, split="long-tail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One bank, one run, one classifier.

    Attributes:
        name: of its folder.
        title: in tables.
        method: which bank: `bob`, `diff-gen`, `diff-aug`, `diff-mix`, `diff-ii` or `real-guidance`.
        lora: what the engine is built with; None for the model as it is.
        options: of the bank.
        measured: whether FID and context of the images are measured, not only the classifier.
    """

    name: str
    title: str
    method: str
    lora: Lora | None
    options: tuple[tuple[str, Any], ...] = ()
    measured: bool = False

    @property
    def split(self) -> str:
        """Of the real pictures."""
        return self.lora.split if self.lora else "confounded"


MARGINALIZE = ("none", "class", "dataset")
PRESERVE = {"plain": DATADREAM, "preserve": BOB}


def _cell(preserve: str, marginalize: str) -> Arm:
    return Arm(
        name=f"{preserve}-{marginalize}", title=f"{preserve}, {marginalize}", method="bob", lora=PRESERVE[preserve],
        options=(("marginalize", marginalize), ("preserve", preserve == "preserve")), measured=True,
    )  # fmt: skip


ABLATION = tuple(_cell(preserve, marginalize) for preserve in PRESERVE for marginalize in MARGINALIZE)
"""Table 3 of the paper: (no) preservation times marginalisation."""

BASELINES = (
    Arm(name="real-guidance", title="Real Guidance", method="real-guidance", lora=None),
    Arm(name="diff-aug", title="Diff-Aug", method="diff-aug", lora=WORDS),
    Arm(name="diff-gen", title="Diff-Gen", method="diff-gen", lora=WORDS),
    Arm(name="diff-mix", title="Diff-Mix", method="diff-mix", lora=WORDS),
    Arm(name="diff-ii", title="Diff-II", method="diff-ii", lora=WORDS),
)
METHODS = (*((arm.name, arm.title) for arm in BASELINES), ("plain-none", "DataDream"), ("preserve-dataset", "BOB"))
"""Table 1: name and title. DataDream and BOB are cells of the ablation."""

LONG_TAIL_ARMS = (
    Arm(name="long-tail", title="BOB, long tail", method="bob", lora=LONG, options=(("marginalize", "dataset"),)),
)


def _length(arm: Arm, steps: int) -> Arm:
    assert arm.lora is not None
    lora = Lora(name=f"{arm.lora.name}-{steps}", preserve=arm.lora.preserve, steps=steps)
    return Arm(
        name=f"{arm.name}-{steps}", title=f"{arm.title}, {steps} steps", method="bob", lora=lora, options=arm.options
    )


LENGTHS = tuple(
    _length(arm, steps) for steps in STEPS[:-1] for arm in ABLATION if arm.name in ("plain-none", "preserve-dataset")
)
"""Table 6: DataDream and BOB after shorter fine-tunings."""
