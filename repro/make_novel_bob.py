"""Writes prompts/novel-bob.jsonl: BOB's captions (arXiv 2510.24078) for the invented breeds of PetWorld.

Usage: python -m repro.make_novel_bob [--out FILE]        (a second on one core; the same bytes every time)

BOB marginalises the context over the whole data set: for every image of class y it draws a donor among the
training images of *all* classes and puts the donor's background and pose, as a pair, into the caption of y.
In the paper a vision-language model reads both off the donor; here the donors are PetWorld references, whose
ground truth is known, so the attributes are exact. The rows name no adapter: an engine that should know these
breeds has the LoRA merged into it.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from fastgen.bank.write import write_bank
from fastgen.files import sha256_json
from fastgen.petworld.attributes import NOVEL_PETS
from fastgen.plan.references import petworld_scene
from fastgen.records import Attrs, Header, Row
from fastgen.seeds import row_seed, stream

SEED = 0
SHOTS = 5
"""References per class; all of them together are the donors."""
ROWS_PER_CLASS = 20
DESCRIPTOR = "pet"
TEMPLATE = "a {descriptor} photo of a {class} in the {background} background with the {pose} pose."
"""The caption of BOB; its article stays "a" before a vowel, because that is what the paper trains on."""
DEFAULT_OUT = Path(__file__).parents[1] / "prompts" / "novel-bob.jsonl"


def donors() -> list[Attrs]:
    """Returns background, pose, id and label of every reference, class by class."""
    found = []
    for label, class_ in enumerate(NOVEL_PETS):
        for index in range(SHOTS):
            donor_id = f"petworld/{class_}/{SEED}-{index}"
            scene = petworld_scene(donor_id)
            found.append(Attrs(background=scene.background, pose=scene.pose, donor_id=donor_id, donor_label=label))
    return found


def caption(class_: str, attrs: Attrs) -> str:
    """Fills the caption of BOB with a class and the attributes of a donor."""
    values = {
        "descriptor": DESCRIPTOR,
        "class": class_,
        "background": attrs.background,
        "pose": attrs.pose,
    }
    return TEMPLATE.format_map(values)


def header(bank: list[Attrs]) -> Header:
    """Returns line 1; guidance 2 and 50 steps are BOB's own, the scheduler is the engine's."""
    defaults = {"refs": "petworld", "shots": SHOTS, "mode": "t2i", "guidance_scale": 2.0, "steps": 50}
    attributes = [[a.donor_id, a.background, a.pose] for a in bank]
    provenance = {
        "written_by": "repro/make_novel_bob.py",
        "source": "BOB, arXiv 2510.24078: context marginalization over the data set",
        "template": TEMPLATE,
        "descriptor": DESCRIPTOR,
        "marginalization": "dataset: pairs from uniformly drawn donors of any class, with replacement",
        "attributes": "ground truth of the donors, not the answers of a captioning model",
        "donors": {"count": len(bank), "shots": SHOTS, "seed": SEED, "sha256": sha256_json(attributes)},
        "n_per_class": ROWS_PER_CLASS,
        "seed": SEED,
    }
    return Header(
        name="novel-bob",
        classes=NOVEL_PETS,
        defaults={**defaults, "domain": DESCRIPTOR, "method": "bob"},
        provenance=provenance,
    )


def rows(bank: list[Attrs]) -> Iterator[Row]:
    """Yields the image rows: text to image with no image prompt, one donor each."""
    for label, class_ in enumerate(NOVEL_PETS):
        drawn = stream(SEED, f"novel-bob/{class_}").integers(len(bank), size=ROWS_PER_CLASS)
        for index, donor in enumerate(drawn.tolist()):
            row_id = f"novel-bob-{class_.lower().replace(' ', '-')}-{index:02d}"
            yield Row(
                id=row_id,
                class_=class_,
                label=label,
                prompt=caption(class_, bank[donor]),
                seed=row_seed(SEED, row_id),
                lambda_null=True,
                attrs=bank[donor],
            )


def make(out: Path) -> Path:
    """Writes the bank and returns its path.

    Raises:
        BankError: if the reader would refuse the bank.
        OutputError: if `out` cannot be written.
    """
    bank = donors()
    return write_bank(out, header(bank), rows(bank))


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Writes the bank prompts/novel-bob.jsonl.")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="the bank to write")
    print(make(parser.parse_args().out))


if __name__ == "__main__":
    main()
