"""BOB in miniature: every arm has a bank that says what the arm is about, and the report follows from the results."""

import json

import numpy as np
import pytest

from fastgen.petworld.dataset import export
from repro.bob.arms import ABLATION, BASELINES, BUDGET, COPIES, LENGTHS, LONG_TAIL_ARMS, SHOTS, STEPS
from repro.bob.banks import write_arm_bank
from repro.bob.relations import relations
from repro.bob.results import Results

ARMS = (*ABLATION, *BASELINES, *LONG_TAIL_ARMS, *LENGTHS)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Tiny pictures of both splits."""
    folder = tmp_path_factory.mktemp("pictures")
    same = {"classes": "novel", "test_per_class": 1, "size": 16, "say": lambda line: None}
    export(folder / "confounded", split="confounded", per_class=SHOTS, **same)
    export(folder / "long-tail", split="long-tail", per_class=6, imbalance=6.0, **same)
    return folder


def rows(arm, pictures, path, per_class=5):
    bank = write_arm_bank(
        arm, pictures / arm.split, path, per_class=per_class, steps=2, scheduler="unipc", seed=3
    )  # fmt: skip
    header, *lines = map(json.loads, bank.read_text().splitlines())
    return header, lines


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_every_arm_has_as_many_images_of_each_class(arm, pictures, tmp_path):
    _, lines = rows(arm, pictures, tmp_path / "bank.jsonl", per_class=20)
    counts = np.bincount([line["label"] for line in lines] if "label" in lines[0] else [0])
    if arm.method == "real-guidance":
        assert len(lines) == 12 * 20 // SHOTS, "the run takes every sentence with every real picture"
    elif arm.split == "long-tail":
        train = (pictures / "long-tail" / "train").iterdir()
        real = sorted(len(list(place.glob("*.png"))) for place in train if place.is_dir())
        assert sorted(BUDGET - COPIES * n for n in real) == sorted(counts)
    else:
        assert counts.tolist() == [20] * 12


def test_the_cells_differ_in_donors_and_prompts(pictures, tmp_path):
    for cell in ABLATION:
        header, lines = rows(cell, pictures, tmp_path / f"{cell.name}.jsonl")
        donors = [line.get("attrs", {}).get("donor_label") for line in lines]
        own = [donor == line["label"] for donor, line in zip(donors, lines, strict=True)]
        says = ["background" in line["prompt"] for line in lines]
        marginalize = dict(cell.options)["marginalize"]
        assert all(says) == any(says) == (marginalize != "none"), cell.name
        assert {"none": donors == [None] * len(lines), "class": all(own), "dataset": 0 < sum(own) < 30}[marginalize]
        assert header["provenance"]["preserve"] == cell.name.startswith("preserve")
        assert {one["target"] for line in lines for one in line["adapters"]} == {"unet", "text", "ti"}


def made_up(accuracy):
    """Results with an accuracy for every arm; everything else is the same for all."""
    context = {name: {"information": 0.5, "right": 0.5, "probe": 0.9} for name in ("background", "pose")}
    return Results(
        [
            {
                "arm": cell.name, "seed": seed, "images": 1, "fid": {"a": 1.0}, "context": context,
                "accuracy": {"real": {"macro": 0.2}, "real+synthetic": {"macro": accuracy[cell.name] + 0.001 * seed}},
            }
            for cell in ABLATION
            for seed in range(3)
        ]
    )  # fmt: skip


def test_the_papers_own_table_holds_and_its_opposite_fails():
    cells = [cell.name for cell in ABLATION]
    paper = dict(zip(cells, (0.6800, 0.6801, 0.7013, 0.6590, 0.6438, 0.7378), strict=True))
    of_paper, of_opposite = (
        [one.verdict for one in relations(made_up(table))]
        for table in (paper, {name: 1 - value for name, value in paper.items()})
    )
    assert of_paper[:3] == ["holds"] * 3, "best cell, interaction, class level"
    assert of_opposite[:3] == ["fails"] * 3
    assert len(STEPS) == len({arm.lora.steps for arm in LENGTHS}) + 1
