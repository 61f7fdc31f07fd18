"""One bank per arm, by the same builders that a user has."""

from pathlib import Path
from typing import Any

from fastgen.bank.captions import read_captions
from fastgen.bank.img2img import write_real_guidance_bank
from fastgen.methods.bob import write_bob_bank
from fastgen.methods.diff_ii import write_diff_ii_bank
from fastgen.methods.diffusion_edit import write_diff_bank
from fastgen.petworld.attributes import NOVEL_PETS
from repro.bob.arms import BUDGET, COPIES, SHOTS, Arm

DESCRIPTOR = "pet"
GUIDANCE = 2.0
"""BOB's and DataDream's, and here of all arms: they are denoised alike."""
LORA = "fine"
"""Name of the LoRA in the engines."""
INVERSION = 8
"""Steps of Diff-II's inversion; 200 in its code, for 25 of denoising."""
SUFFIXES = 10
"""Settings of Diff-II; there GPT-4 sums up captions, here they are the backgrounds of the real pictures."""


def write_arm_bank(arm: Arm, data: Path, path: Path, *, per_class: int, steps: int, scheduler: str, seed: int) -> Path:
    """Writes the bank of an arm.

    Args:
        arm: of `arms`.
        data: PetWorld folder with the real pictures.
        path: of the bank.
        per_class: images of each class; not of the long tail, which has a budget.
        steps, scheduler: of the denoising.
        seed: of everything that is drawn.

    Returns:
        the path.
    """
    train, captions = data / "train", data / "train" / "metadata.jsonl"
    same: dict[str, Any] = {"seed": seed, "say": lambda line: None}
    denoise: dict[str, Any] = {"guidance": GUIDANCE, "steps": steps, "scheduler": scheduler}
    if arm.method == "bob":
        counts: dict[str, Any] = (
            {"budget": BUDGET, "copies": COPIES} if arm.split == "long-tail" else {"per_class": per_class}
        )
        return write_bob_bank(
            captions, path, classes=NOVEL_PETS, descriptor=DESCRIPTOR, lora=LORA, words=True, **counts,
            **dict(arm.options), **denoise, **same,
        )  # fmt: skip
    if arm.method == "real-guidance":
        defaults = {"guidance_scale": GUIDANCE, "steps": steps, "scheduler": scheduler}
        return write_real_guidance_bank(
            NOVEL_PETS, path, shots=SHOTS, images_per_ref=per_class // SHOTS, defaults=defaults
        )
    learnt: dict[str, Any] = {
        "refs": train, "classes": NOVEL_PETS, "superclass": DESCRIPTOR, "lora": LORA, "per_class": per_class, **denoise,
        **same,
    }  # fmt: skip
    if arm.method == "diff-ii":
        found = dict.fromkeys(
            line.attributes["background"] for line in read_captions(captions, attributes=("background",))
        )
        suffixes = [f"in the {background} background" for background in list(found)[:SUFFIXES]]
        return write_diff_ii_bank(path, suffixes=suffixes, inv_steps=INVERSION, **learnt)
    return write_diff_bank(arm.method, path, **learnt)
