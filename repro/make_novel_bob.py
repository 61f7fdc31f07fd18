"""Writes prompts/novel-bob.jsonl: BOB's captions (arXiv 2510.24078) for the invented breeds of PetWorld.

Usage: python -m repro.make_novel_bob [--out FILE]        (a second on one core; the same bytes every time)

In the paper a vision-language model reads background and pose off the donors; here the donors are PetWorld references,
whose ground truth is known, so the attributes are exact. The rows name no adapter: an engine that should know these
breeds has the LoRA merged into it. The scheduler is the engine's.
"""

import argparse
from pathlib import Path

from fastgen.bank.captions import Caption
from fastgen.methods.bob import write_bob_bank
from fastgen.petworld.attributes import NOVEL_PETS
from fastgen.plan.references import petworld_scene

SEED = 0
SHOTS = 5
"""References per class; all of them together are the donors."""
ROWS_PER_CLASS = 20
DESCRIPTOR = "pet"
DEFAULT_OUT = Path(__file__).parents[1] / "prompts" / "novel-bob.jsonl"


def donors() -> list[Caption]:
    """Returns background and pose of every reference, class by class."""
    found = []
    for class_ in NOVEL_PETS:
        for index in range(SHOTS):
            donor_id = f"petworld/{class_}/{SEED}-{index}"
            scene = petworld_scene(donor_id)
            attributes = {"background": scene.background, "pose": scene.pose}
            found.append(Caption(file=donor_id, class_=class_, attributes=attributes))
    return found


def make(out: Path) -> Path:
    """Writes the bank and returns its path.

    Raises:
        BankError: if the reader would refuse the bank.
        OutputError: if `out` cannot be written.
    """
    return write_bob_bank(
        donors(),
        out,
        classes=NOVEL_PETS,
        descriptor=DESCRIPTOR,
        per_class=ROWS_PER_CLASS,
        scheduler=None,
        seed=SEED,
        name="novel-bob",
        provenance={"written_by": "repro/make_novel_bob.py", "captions": "ground truth of PetWorld references"},
        say=lambda line: None,
    )


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Writes the bank prompts/novel-bob.jsonl.")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="the bank to write")
    print(make(parser.parse_args().out))


if __name__ == "__main__":
    main()
