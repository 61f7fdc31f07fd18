"""Real Guidance and DA-Fusion as banks: the card's settings, and what the plan makes of them."""

from collections import Counter

import pytest
from scipy import stats

from fastgen.bank.img2img import write_da_fusion_bank, write_real_guidance_bank
from fastgen.bank.read import check_bank
from fastgen.class_words import word_of, words_of
from fastgen.errors import BankError, FastgenError
from fastgen.plan.references import find_references
from fastgen.plan.resolve import plan_rows

CLASSES = ["Pug", "Maine Coon"]


def planned(path, **options):
    bank = check_bank(path)
    shots = options.pop("shots", None)
    references = find_references("petworld", bank.header, bank_dir=path.parent, shots=shots)
    return list(plan_rows(bank, references, shots=shots, **options))


def test_real_guidance_as_dalda_ran_it(tmp_path):
    rows = planned(write_real_guidance_bank(CLASSES, tmp_path / "rg.jsonl"))
    assert len(rows) == 20 and len({row.seed for row in rows}) == 20
    for row in rows:
        assert (row.mode, row.strength, row.guidance_scale, row.steps, row.scheduler) == (
            *("img2img", 0.5, 7.5, 50, "pndm"),
        )
        assert row.lambda_null and row.lambda_ is None and row.ref.role == ("init",)
        assert row.negative_prompt is None and row.method == "real-guidance" and row.adapters == ()
    assert {row.prompt for row in rows} == {"a photo of a Pug", "a photo of a Maine Coon"}


def test_ten_images_of_each_reference_whatever_the_shots_and_the_policy(tmp_path):
    for write in (write_real_guidance_bank, write_da_fusion_bank):
        path = write(CLASSES, tmp_path / "bank.jsonl", shots=2)
        for shots in (None, 1, 2, 3):
            rows = planned(path, shots=shots, policy="ags")
            assert set(Counter(row.ref.id for row in rows).values()) == {10}
            assert len({row.ref.id for row in rows}) == 2 * (shots or 2) and len({r.seed for r in rows}) == len(rows)
            assert all(row.lambda_null and row.ref.role == ("init",) for row in rows)


@pytest.mark.parametrize("shots, strength", [(1, 0.5), (2, 0.4), (4, 0.35), (8, 0.2), (16, 0.15)])
def test_strength_by_shots(tmp_path, shots, strength):
    path = write_real_guidance_bank(CLASSES, tmp_path / "b.jsonl", strength="by_shots", shots=shots, images_per_ref=1)
    assert {row.strength for row in planned(path)} == {strength}
    same = write_real_guidance_bank(CLASSES, tmp_path / "c.jsonl", shots=shots, images_per_ref=1)
    assert {row.strength for row in planned(same)} == {0.5}, "as DALDA ran it"


def test_da_fusion_has_a_word_per_class_and_draws_strengths(tmp_path):
    path = write_da_fusion_bank(CLASSES, tmp_path / "df.jsonl", shots=4, images_per_ref=50, refs="petworld")
    rows = planned(path)
    assert len(rows) == 400
    for row in rows:
        word = {"Pug": "<pug>", "Maine Coon": "<maine_coon>"}[row.class_]
        assert row.prompt == f"a photo of a {word}"
        assert [(a.name, a.target, a.scale) for a in row.adapters] == [(word, "ti", 1.0)]
        assert (row.mode, row.guidance_scale, row.steps, row.scheduler) == ("img2img", 7.5, 50, "pndm")
    counts = Counter(row.strength for row in rows)
    assert set(counts) == {1.0, 0.75, 0.5, 0.25}
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3
    of_first = [row.strength for row in rows if row.ref.id == rows[0].ref.id]
    of_second = [row.strength for row in rows if row.ref.id == "petworld/Pug/0-1"]
    assert of_first != of_second, "drawn for every image"


def test_strengths_depend_on_seed_and_row_only(tmp_path):
    def strengths(name="b", classes=CLASSES, **options):
        rows = planned(write_da_fusion_bank(classes, tmp_path / f"{name}.jsonl", **options))
        return {row.id: row.strength for row in rows}

    first = strengths()
    assert strengths() == first != strengths(seed=1)
    longer = strengths("c", [*CLASSES, "Beagle"], shots=2, images_per_ref=12)
    assert {id_: longer[id_] for id_ in first} == first


def test_settings_can_be_changed_at_the_bank_and_at_the_run(tmp_path):
    given = {"strength": 0.3, "defaults": {"steps": 25, "domain": "pet"}}
    path = write_real_guidance_bank(CLASSES, tmp_path / "b.jsonl", **given)
    assert {(row.steps, row.strength, row.domain) for row in planned(path)} == {(25, 0.3, "pet")}
    overrides = {"steps": 20, "guidance_scale": 3.0, "scheduler": "ddim"}
    row = planned(path, overrides=overrides)[0]
    assert (row.steps, row.guidance_scale, row.scheduler) == (20, 3.0, "ddim")


def test_words():
    names = ["Maine Coon", "colt's foot", "hard-leaved pocket orchid", "Ä b", "_x_"]
    words = ["<maine_coon>", "<colt_s_foot>", "<hard_leaved_pocket_orchid>", "<ä_b>", "<x>"]
    assert list(words_of(names).values()) == words == [word_of(name) for name in names]
    for twins in (["sea horse", "sea-horse"], ["--"]):
        with pytest.raises(FastgenError, match="would be <"):
            words_of(twins)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"strength": 0.0}, "strength: got 0.0; allowed: a number above 0 up to 1, or by_shots"),
        ({"strength": "half"}, "strength: got 'half'"),
        ({"strength": "nan"}, "strength: got 'nan'"),
        ({"strength": "by_shots", "shots": 3}, "strength by_shots: got 3 shots; allowed: 1, 2, 4, 8, 16"),
        ({"shots": 0}, "shots: got 0; allowed: 1 or more"),
        ({"images_per_ref": 0}, "images_per_ref: got 0; allowed: 1 or more"),
        ({"defaults": {"stps": 3}}, "b.jsonl:1: field 'defaults.stps': got an unknown field"),
        ({"classes": ["pug", "pug"]}, "b.jsonl:1: field 'classes[1]'"),
    ],
)
def test_bad_arguments_write_nothing(tmp_path, options, message):
    with pytest.raises(FastgenError) as error:
        write_real_guidance_bank(options.pop("classes", CLASSES), tmp_path / "b.jsonl", **options)
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_strengths_out_of_range_and_equal_words_are_refused(tmp_path):
    with pytest.raises(FastgenError, match="strength: got 1.5"):
        write_da_fusion_bank(CLASSES, tmp_path / "b.jsonl", strengths=(0.5, 1.5))
    with pytest.raises(BankError, match="field 'classes'"):
        write_da_fusion_bank([], tmp_path / "b.jsonl")
    with pytest.raises(FastgenError, match="would be <a_b>"):
        write_da_fusion_bank(["a b", "a-b"], tmp_path / "b.jsonl")
    assert list(tmp_path.iterdir()) == []
