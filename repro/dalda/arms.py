"""The methods that are compared, and the variations that the relations need.

DALDA, ECCV 2024 workshops, arXiv 2409.16949. HC stands for data sets whose pictures CLIP recognises (here the 37 breeds
that the embedded models know), LC for those it does not (the 12 novel breeds).
"""

from dataclasses import dataclass

from fastgen.petworld.attributes import NOVEL_PETS, OXFORD_PETS

WORLDS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "HC": ("oxford", OXFORD_PETS, "pets.jsonl"),
    "LC": ("novel", NOVEL_PETS, "novel.jsonl"),
}
"""Per world: its classes for `fastgen petworld`, their names, and the bank of sentences in prompts/."""

LAMBDAS = (0.0, 0.25, 0.5, 0.75, 1.0)
STRENGTHS = (0.25, 0.5, 0.75, 1.0)
PROMPTS = (1, 2, 4)
SHOTS = (1, 2, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One bank, one run.

    Attributes:
        name: of its folder.
        title: in tables.
        prompts: which bank: `llm`, `base`, `real-guidance` or `da-fusion`.
        policy: of lambda: `ags`, `uniform` or a number; None for banks without an image prompt.
        per_reference: images for each real image.
        shots: real images per class.
        strength: of real-guidance, 0 to 1; None as the method says.
        worlds: where it is measured.
        trained: worlds in which classifiers are trained with it.
    """

    name: str
    title: str
    prompts: str
    policy: str | float | None = None
    per_reference: int = 4
    shots: int = 1
    strength: float | None = None
    worlds: tuple[str, ...] = ("HC", "LC")
    trained: tuple[str, ...] = ("HC", "LC")


TABLE = (
    Arm(name="real-guidance", title="Real Guidance", prompts="real-guidance"),
    Arm(name="da-fusion", title="DA-Fusion", prompts="da-fusion"),
    Arm(name="base-rs", title="Base + RS", prompts="base", policy="uniform"),
    Arm(name="base-ags", title="Base + AGS", prompts="base", policy="ags"),
    Arm(name="llm-rs", title="LLM + RS", prompts="llm", policy="uniform"),
    Arm(name="llm-ags", title="LLM + AGS", prompts="llm", policy="ags"),
)
"""The rows of the paper's tables 1 and 2."""


SWEEPS = (
    *(
        Arm(
            name=f"lambda-{value:g}", title=f"λ = {value:g}", prompts="llm", policy=value, per_reference=1,
            trained=("HC",),
        )
        for value in LAMBDAS
    ),
    *(
        Arm(
            name=f"strength-{value:g}", title=f"img2img {value:g}", prompts="real-guidance", strength=value,
            per_reference=1, trained=(),
        )
        for value in STRENGTHS
    ),
)  # fmt: skip
"""What relations 1 and 5 need, and figure 8."""


def _figures() -> tuple[Arm, ...]:
    prompts = [
        Arm(name=f"prompts-{n}", title=f"{n} sentences", prompts="llm", policy="ags", per_reference=n, worlds=("HC",))
        for n in PROMPTS
    ]
    shots = [
        Arm(name=f"{bank}-{n}-shots", title=f"{title}, {n} shots", prompts=kind, policy=policy, shots=n,
            per_reference=1, worlds=("HC",))
        for n in SHOTS
        for bank, title, kind, policy in (
            ("real-guidance", "Real Guidance", "real-guidance", None),
            ("llm-ags", "LLM + AGS", "llm", "ags"),
        )
    ]  # fmt: skip
    return (*prompts, *shots)


FIGURES = _figures()
"""Figures 9, and 6 and 7."""
