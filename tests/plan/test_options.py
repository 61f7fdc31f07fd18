"""Every option of DALDA's deviation table that a plan knows: the two profiles, seeds, scores, fits and sizes."""

import json

import numpy as np
import pytest
from PIL import Image

from fastgen.bank.defaults import with_profile
from fastgen.bank.read import Bank, open_bank
from fastgen.plan.ags import AgsRule, ags_parameters
from fastgen.plan.pictures import picture_size
from fastgen.plan.references import find_references
from fastgen.plan.resolve import plan_rows
from fastgen.seeds import stream

CLASSES = ["Beagle", "Pug"]


def write_bank(folder, rows, **defaults):
    path = folder / "bank.jsonl"
    header = {"fastgen_bank": 1, "name": "t", "classes": CLASSES, "defaults": {"policy": "ags", **defaults}}
    path.write_text("".join(json.dumps(line) + "\n" for line in (header, *rows)), encoding="utf-8")
    return open_bank(path)


def planned(bank, *, refs="petworld", shots=None, n_refs=None, score=0.9, **options):
    found = find_references(refs, bank.header, bank_dir=bank.path.parent, shots=n_refs or shots)
    return list(plan_rows(bank, found, scorer=lambda reference: score, shots=shots, **options))


def prompts(count, class_="Pug", **fields):
    return [{"id": f"{class_}-{i}", "class": class_, "prompt": f"{class_} {i}", **fields} for i in range(count)]


@pytest.mark.parametrize("n, score", [(1, 0.9), (4, 0.9), (4, 0.31), (16, 1.0), (16, 0.0)])
@pytest.mark.parametrize("profile", ["dalda-paper", "dalda-official"])
def test_the_profiles_give_the_cards_distributions(tmp_path, profile, n, score):
    """tests/plan/test_ags.py holds the distributions against the card's numbers."""
    bank = write_bank(tmp_path, prompts(400), ags={"low_if": "lt"}, seed_mode="stream", ref_fit="center_crop")
    bank = Bank(bank.path, with_profile(bank.header, profile))
    rule = AgsRule() if profile == "dalda-paper" else AgsRule(sampler="clipnorm", high_max="grow_sqrt_n")
    expected = ags_parameters(score, n, rule)
    rows = planned(bank, shots=n, n_refs=1, score=score)
    for row in rows:
        assert row.lambda_ == expected.sample(stream(row.seed, "lambda"))
        assert (row.score, row.lambda_mu, row.lambda_sigma) == (score, expected.mu, pytest.approx(0.05 * n))
        assert (row.lambda_bin, row.lambda_sampler, row.ref.fit) == (expected.bin, rule.sampler, None)
    kept = write_bank(tmp_path, [row.to_json() for row in rows[:20]])
    assert planned(kept, n_refs=1) == rows[:20], "a bank may hold what the official form draws, 0.8 too"
    drawn = np.array([row.lambda_ for row in rows])
    assert expected.lo <= drawn.min() and drawn.max() <= expected.hi
    exact = expected.quantile((np.arange(10_000) + 0.5) / 10_000)
    assert drawn.mean() == pytest.approx(exact.mean(), abs=4 * exact.std() / 20)
    for end in (expected.lo, expected.hi):
        assert (drawn == end).mean() == pytest.approx((exact == end).mean(), abs=4 * 0.5 / 20)


def test_a_rows_own_options_come_before_the_banks(tmp_path):
    rows = [
        *prompts(1, **{"lambda": {"policy": "ags"}}),
        *prompts(1, "Beagle", **{"lambda": {"policy": "ags", "sampler": "truncnorm", "low_if": "lt"}}),
    ]
    bank = write_bank(tmp_path, rows, ags={"sampler": "clipnorm"}, shots=8)
    second, first = sorted(planned(bank, score=0.3, n_refs=1), key=lambda row: row.class_)
    assert (first.lambda_sampler, first.lambda_bin, second.lambda_sampler, second.lambda_bin) == (
        *("clipnorm", "low", "truncnorm", "high"),
    )
    assert first.lambda_sigma == pytest.approx(0.4), "n is the header's when the policy names none"
    asked = planned(bank, score=0.3, n_refs=1, policy="ags")
    assert {row.lambda_sampler for row in asked} == {"clipnorm"}, "--policy ags means the bank's AGS"


def test_one_lambda_per_reference(tmp_path):
    bank = write_bank(tmp_path, prompts(6), ags={"per": "reference"})
    rows = planned(bank, shots=3)
    by_reference = {row.ref.id: {r.lambda_ for r in rows if r.ref.id == row.ref.id} for row in rows}
    assert len(by_reference) == 3 and all(len(drawn) == 1 for drawn in by_reference.values())
    assert len({row.lambda_ for row in rows}) == 3 and len({row.seed for row in rows}) == 18
    shorter = write_bank(tmp_path, prompts(2), ags={"per": "reference"})
    again = {row.id: row.lambda_ for row in planned(shorter, shots=3)}
    assert all(again[row.id] == row.lambda_ for row in rows if row.id in again)
    assert len(again) == 6
    assert {row.lambda_ for row in planned(bank, shots=3, seed=1)} != {row.lambda_ for row in rows}


def test_one_stream_for_all_seeds_and_lambdas(tmp_path):
    """What a row becomes depends on the rows before it; its image depends on the planned row alone."""
    rows = [*prompts(3), *prompts(1, "Beagle", seed=7)]
    bank = write_bank(tmp_path, rows, seed_mode="stream")
    plan = planned(bank, shots=1, policy="uniform")
    rng = np.random.default_rng(0)
    for row in plan[:3]:
        assert row.seed == rng.integers(2**64, dtype=np.uint64) and row.lambda_ == rng.random()
    assert plan[3].seed == 7
    assert planned(bank, shots=1, policy="uniform") == plan, "every rank makes the same plan"
    assert planned(bank, shots=1, policy="uniform", limit=2) == plan[:2]
    assert planned(bank, shots=1, policy="uniform", seed=1)[0].seed != plan[0].seed
    kept = write_bank(tmp_path, [row.to_json() for row in plan][::-1])
    assert planned(kept)[::-1] == plan, "in any order, under any header"


def test_how_a_reference_becomes_square_stands_in_the_row(tmp_path):
    own = {"id": "own", "class": "Pug", "prompt": "x", "ref": {"id": "petworld/Pug/0-5", "fit": "squash"}}
    done = {**own, "id": "done", "seed": 3, "lambda": 0.5, "ref": {"id": "petworld/Pug/0-6"}}
    bank = write_bank(tmp_path, [*prompts(1), own, done], ref_fit="center_crop")
    assert [row.ref.fit for row in planned(bank)] == ["center_crop", "squash", None], "an image row stays as it is"


def test_the_size_of_the_reference_is_recorded_as_a_viewer_shows_it(tmp_path):
    folder = tmp_path / "refs" / "Pug"
    folder.mkdir(parents=True)
    image = Image.new("RGB", (60, 40))
    image.save(folder / "a.png")
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(folder / "b.jpg", exif=exif)
    (folder / "c.png").write_bytes(b"no image")
    rows = planned(write_bank(tmp_path, prompts(1)), refs=tmp_path / "refs", policy="uniform")
    assert [row.ref.size for row in rows] == [(60, 40), (40, 60), None], "generation says what is wrong with it"
    assert planned(write_bank(tmp_path, prompts(1)))[0].ref.size == (64, 64)
    assert picture_size(folder / "none.png") is None
