"""One bank per arm, by the same builders that a user has."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from fastgen.bank.img2img import write_da_fusion_bank, write_real_guidance_bank
from fastgen.bank.template import write_template_bank
from fastgen.bank.write import write_bank
from repro.dalda.arms import WORLDS, Arm

PROMPTS = Path(__file__).parents[2] / "prompts"
SAME = {"guidance_scale": 3.0}
"""The embedded model's own guidance, in place of the baselines': all arms are denoised alike."""


def write_arm_bank(arm: Arm, world: str, path: Path, *, seed: int) -> Path:
    """Writes the bank of an arm.

    Args:
        arm: of `arms.ARMS`.
        world: HC or LC.
        path: of the bank.
        seed: of the strengths that DA-Fusion draws.

    Returns:
        the path.
    """
    _, classes, sentences = WORLDS[world]
    header, rows = _shipped(PROMPTS / sentences)
    if arm.prompts == "llm":
        return write_bank(path, {**header, "name": path.stem}, _first(rows, arm.per_reference))
    if arm.prompts == "real-guidance":
        return write_real_guidance_bank(
            classes,
            path,
            strength=arm.strength or 0.5,
            shots=arm.shots,
            images_per_ref=arm.per_reference,
            defaults=SAME,
        )
    if arm.prompts == "da-fusion":
        return write_da_fusion_bank(
            classes, path, shots=arm.shots, images_per_ref=arm.per_reference, seed=seed, defaults=SAME
        )
    return write_template_bank(classes, path, per_class=arm.per_reference, defaults=header["defaults"])


def _shipped(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return json.loads(lines[0]), [json.loads(line) for line in lines[1:]]


def _first(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The first sentences of every class; they keep their ids, and so their noise."""
    seen: Counter[str] = Counter()
    kept = []
    for row in rows:
        seen[row["class"]] += 1
        if seen[row["class"]] <= count:
            kept.append(row)
    return kept
