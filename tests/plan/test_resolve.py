"""From bank to image rows: pairing, seeds, lambda, defaults; and that a row depends on nothing but itself."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from PIL import Image

from fastgen.bank.read import check_bank, open_bank
from fastgen.errors import BankError, FastgenError, ReferenceImageError
from fastgen.plan.ags import AgsRule, ags_parameters
from fastgen.plan.references import find_references
from fastgen.plan.resolve import count_rows, parse_policy, plan_rows, reference_check
from fastgen.records import LambdaPolicy, Row
from fastgen.seeds import row_seed, stream

CLASSES = ["Beagle", "Bombay", "Pug"]


class CountingScorer:
    """Scores without a model: 0.1 for a Beagle (badly recognised), 0.9 for others; counts the questions."""

    def __init__(self):
        self.asked = Counter()

    def __call__(self, reference):
        self.asked[reference.id] += 1
        return 0.1 if reference.class_ == "Beagle" else 0.9


def write_bank(folder, rows, **defaults):
    path = folder / "bank.jsonl"
    header = {"fastgen_bank": 1, "name": "t", "classes": CLASSES, "defaults": defaults}
    path.write_text("".join(json.dumps(line) + "\n" for line in (header, *rows)), encoding="utf-8")
    return path


def make_plan(folder, rows, *, refs="petworld", shots=None, scorer=None, defaults=None, **options):
    bank = open_bank(write_bank(folder, rows, **(defaults or {})))
    found = find_references(refs, bank.header, bank_dir=folder, shots=options.get("n_refs", shots), seed=3)
    options.pop("n_refs", None)
    return list(plan_rows(bank, found, scorer=scorer or CountingScorer(), shots=shots, **options))


def prompts(count, class_="Beagle", **fields):
    return [
        {"id": f"{class_}-{i}", "class": class_, "prompt": f"sentence {i} of {class_}", **fields} for i in range(count)
    ]


def test_each_reference_meets_each_sentence_of_its_class_exactly_once(tmp_path):
    rows = [row for class_ in CLASSES for row in prompts(4, class_)]
    plan = make_plan(tmp_path, rows, shots=3)
    assert len(plan) == 3 * 4 * 3 == len({row.id for row in plan})
    pairs = Counter((row.ref.id, row.prompt) for row in plan)
    assert set(pairs.values()) == {1} and len(pairs) == 36
    assert all(row.class_ in row.prompt and row.class_ in row.ref.id for row in plan)
    assert plan[0].id == "Beagle-0~3-0" and plan[0].ref.id == "petworld/Beagle/3-0"
    assert [row.label for row in plan] == sorted(row.label for row in plan)


def test_a_planned_row_is_an_image_row_that_a_bank_may_hold_and_a_plan_keeps(tmp_path):
    rows = [*prompts(2), *prompts(1, "Pug", **{"lambda": None}), *prompts(1, "Bombay", **{"lambda": 0.4})]
    defaults = {"prefix": "best quality, ", "steps": 9, "negative_prompt": "lowres"}
    plan = make_plan(tmp_path, rows, shots=2, defaults=defaults, engine_defaults={"width": 64, "height": 64})
    assert all(row.is_image_row for row in plan)
    again = make_plan(tmp_path, [row.to_json() for row in plan], shots=None, seed=99)
    assert again == plan
    scorer = CountingScorer()
    assert make_plan(tmp_path, [row.to_json() for row in plan], defaults=defaults, scorer=scorer) == plan
    assert not scorer.asked, "the prefix comes once, and nothing is scored again"


def test_lambda_follows_ags_of_the_references_score_from_the_rows_own_stream(tmp_path):
    scorer = CountingScorer()
    plan = make_plan(tmp_path, [*prompts(5), *prompts(5, "Pug")], shots=2, scorer=scorer)
    assert set(scorer.asked) == {f"petworld/{c}/3-{k}" for c in ("Beagle", "Pug") for k in (0, 1)}
    for row in plan:
        expected = ags_parameters(0.1 if row.class_ == "Beagle" else 0.9, 2)
        assert row.lambda_ == expected.sample(stream(row.seed, "lambda"))
        assert (row.lambda_mu, row.lambda_sigma, row.lambda_bin) == (expected.mu, 0.1, expected.bin)
        assert row.lambda_sampler == "truncnorm" and row.score in (0.1, 0.9)
    assert len({row.lambda_ for row in plan}) == len(plan), "drawn anew for every image"


def test_a_row_does_not_depend_on_order_other_rows_limit_or_rank(tmp_path):
    """Card, mistake 4."""
    rows = [*prompts(6), *prompts(6, "Pug")]
    plan = {row.id: row for row in make_plan(tmp_path, rows, shots=2)}
    assert {row.id: row for row in make_plan(tmp_path, rows[::-1], shots=2)} == plan
    for row in make_plan(tmp_path, rows[4:5], shots=2):
        assert plan[row.id] == row
    whole = list(plan.values())
    assert make_plan(tmp_path, rows, shots=2, limit=7) == whole[:7]
    assert make_plan(tmp_path, rows, shots=2, limit=0) == []
    assert [r for k in range(3) for r in whole[k::3]] == [
        r for k in range(3) for i, r in enumerate(make_plan(tmp_path, rows, shots=2)) if i % 3 == k
    ]
    more = {row.id: row for row in make_plan(tmp_path, rows, shots=2, n_refs=4)}
    assert {id_: more[id_] for id_ in plan} == plan, "references added later change nothing"


def test_the_run_seed_changes_rows_without_a_seed_only(tmp_path):
    rows = [*prompts(1), *prompts(1, "Pug", seed=2**64 - 1)]
    first, second = (make_plan(tmp_path, rows, shots=1, seed=seed) for seed in (0, 1))
    assert first[0].seed == row_seed(0, first[0].id) != second[0].seed
    assert first[1] == second[1] and first[1].seed == 2**64 - 1


def test_rows_without_an_id_are_called_by_their_line(tmp_path):
    rows = [{"class": "Pug", "prompt": "x"}, {"class": "Pug", "prompt": "y", "lambda": None}]
    assert [row.id for row in make_plan(tmp_path, rows)] == ["line-00000002~3-0", "line-00000003"]


def test_prompts_are_put_together_and_never_formatted(tmp_path):
    """Card, mistake 10: braces, percent signs and any language stay as written."""
    wild = "a {class} {0} {} %s \\n {{x}} ein Hündchen 犬 \u2028"
    (row,) = make_plan(tmp_path, [{"class": "Pug", "prompt": wild}], defaults={"prefix": "{p} "})
    assert row.prompt == "{p} " + wild


@pytest.mark.parametrize(
    "policy, row, header, expected",
    [
        (None, None, {}, "ags"),
        (None, None, {"policy": "uniform"}, "uniform"),
        (None, None, {"policy": 0.25}, 0.25),
        (None, None, {"lambda": 0.75}, 0.75),
        (None, None, {"lambda": {"policy": "uniform", "lo": 0.5, "hi": 0.6}}, "uniform"),
        (None, 0.5, {"policy": "ags"}, 0.5),
        (None, {"policy": "uniform"}, {"policy": 0.25}, "uniform"),
        ("0.1", 0.5, {"policy": "ags"}, 0.1),
        (0.0, {"policy": "ags"}, {}, 0.0),
        ("uniform", 0.5, {"lambda": 0.75}, "uniform"),
        ("ags", 0.5, {"policy": 0.2}, "ags"),
    ],
)
def test_lambda_comes_from_the_run_the_row_the_header_in_that_order(tmp_path, policy, row, header, expected):
    fields = {} if row is None else {"lambda": row}
    scorer = CountingScorer()
    (found,) = make_plan(tmp_path, prompts(1, **fields), defaults=header, policy=policy, scorer=scorer)
    if isinstance(expected, float):
        assert found.lambda_ == expected and found.lambda_sampler is None and found.lambda_mu is None
    elif expected == "uniform":
        assert found.lambda_sampler == "uniform" and found.lambda_mu is None
    else:
        assert found.lambda_bin == "low" and 0.7 <= found.lambda_ <= 0.9
    assert bool(scorer.asked) == (expected == "ags") and (found.score is None) == (expected != "ags")


def test_uniform_keeps_to_its_bounds(tmp_path):
    rows = prompts(40, **{"lambda": {"policy": "uniform", "lo": 0.5, "hi": 0.6}})
    drawn = [row.lambda_ for row in make_plan(tmp_path, rows)]
    assert 0.5 <= min(drawn) < 0.53 and 0.57 < max(drawn) <= 0.6


def test_lambda_null_has_no_image_branch_whatever_the_policy(tmp_path):
    rows = prompts(1, **{"lambda": None})
    for policy in (None, "ags", 0.5):
        (row,) = make_plan(tmp_path, rows, shots=3, policy=policy, defaults={"policy": "ags"})
        assert row.lambda_ is None and row.lambda_null and row.ref is None and row.id == "Beagle-0"


def test_without_references_a_bank_is_text_only_unless_it_asks_for_lambda(tmp_path):
    (row,) = make_plan(tmp_path, prompts(1), refs=None)
    assert row.is_image_row and row.lambda_null and row.seed == row_seed(0, "Beagle-0")
    for options in ({"policy": "ags"}, {"policy": 0.5}, {"defaults": {"policy": "uniform"}}):
        with pytest.raises(ReferenceImageError, match="bank.jsonl:2: .*got no source; give --refs"):
            make_plan(tmp_path, prompts(1), refs=None, **options)
    with pytest.raises(ReferenceImageError, match="got no source"):
        make_plan(tmp_path, prompts(1, **{"lambda": 0.5}), refs=None)


def test_the_shots_of_ags(tmp_path):
    """The run's, else the policy's n, else the header's; never the number of images (card, mistake 15)."""

    def sigma(*, shots=None, defaults=None, **fields):
        rows = make_plan(tmp_path, prompts(1, **fields), shots=shots, defaults=defaults, n_refs=1)
        return rows[0].lambda_sigma

    assert sigma() == pytest.approx(0.05)
    assert sigma(defaults={"shots": 4}) == pytest.approx(0.2)
    assert sigma(**{"lambda": {"policy": "ags", "n": 8}}, defaults={"shots": 4}) == pytest.approx(0.4)
    assert sigma(**{"lambda": {"policy": "ags", "n": 8}}, shots=16) == pytest.approx(0.8)


def test_a_score_in_the_row_is_used_as_it_is_and_no_scorer_is_needed(tmp_path):
    bank = open_bank(write_bank(tmp_path, [*prompts(1, score=0.3), *prompts(1, "Pug")]))
    found = find_references("petworld", bank.header, bank_dir=tmp_path)
    plan = plan_rows(bank, found, rule=AgsRule(low_if="lt", sampler="clipnorm"))
    row = next(plan)
    assert (row.score, row.lambda_bin, row.lambda_sampler) == (0.3, "high", "clipnorm")
    with pytest.raises(FastgenError, match="row 'Pug-0~0-0': policy ags needs the score .*--policy uniform"):
        next(plan)


def test_values_come_from_options_row_header_engine_in_that_order(tmp_path):
    rows = [*prompts(1), *prompts(1, "Pug", steps=5, guidance_scale=0, negative_prompt="")]
    first, second = make_plan(
        tmp_path, rows,
        defaults={"steps": 6, "guidance_scale": 3, "method": "dalda", "negative_prompt": "bad"},
        overrides={"guidance_scale": None, "width": 32},
        engine_defaults={"steps": 7, "width": 64, "height": 64, "scheduler": "ddim"},
    )  # fmt: skip
    assert (first.steps, first.guidance_scale, first.method, first.negative_prompt) == (
        6,
        3.0,
        "dalda",
        "bad",
    )
    assert (second.steps, second.guidance_scale, second.negative_prompt) == (5, 0.0, "")
    assert {(row.width, row.height, row.scheduler) for row in (first, second)} == {(32, 64, "ddim")}
    changed = make_plan(tmp_path, rows, overrides={"steps": 1}, defaults={"steps": 6})
    assert [row.steps for row in changed] == [1, 1]


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"overrides": {"stepz": 3}},
            "option: field 'stepz': got an unknown field, allowed: did you mean 'steps'?",
        ),
        ({"overrides": {"steps": 0, "width": 65}}, "option: field 'steps': got 0"),
        ({"engine_defaults": {"lambda": 1}}, "engine default: field 'lambda': got an unknown field"),
        ({"policy": "agss"}, "policy: got 'agss'; allowed: ags, uniform or a number from 0 to 2"),
        ({"policy": 3}, "policy: got 3"),
        ({"policy": "nan"}, "policy: got 'nan'"),
        ({"limit": -1}, "limit: got -1; allowed: 0 or more"),
        ({"shots": 0}, "shots: got 0; allowed: 1 or more"),
    ],
)
def test_wrong_options_are_refused_before_the_first_row(tmp_path, options, message):
    bank = open_bank(write_bank(tmp_path, prompts(1)))
    found = find_references("petworld", bank.header, bank_dir=tmp_path)
    with pytest.raises(FastgenError) as error:
        plan_rows(bank, found, **options)
    assert message in str(error.value)
    if "width" in options.get("overrides", {}):
        assert "field 'width': got 65" in str(error.value), "all of them at once"


def test_policies_as_users_write_them():
    assert parse_policy("ags") == LambdaPolicy(policy="ags", n=1)
    assert parse_policy("ags", 4) == LambdaPolicy(policy="ags", n=4)
    assert parse_policy("0.5") == 0.5 == parse_policy(0.5)
    assert parse_policy(None) is None


def test_img2img_starts_from_every_reference_and_needs_no_lambda(tmp_path):
    rows = prompts(1, mode="img2img", strength=0.5)
    plan = make_plan(tmp_path, rows, shots=2)
    assert [row.ref.role for row in plan] == [("init",)] * 2
    assert all(row.lambda_ is None and row.is_image_row and row.score is None for row in plan)
    assert {row.ref.role for row in make_plan(tmp_path, rows, shots=2, policy=0.5)} == {("ip", "init")}
    null = prompts(1, **{"lambda": None})
    plan = make_plan(tmp_path, null, shots=2, defaults={"mode": "img2img", "strength": 0.5}, policy="ags")
    assert [(row.mode, row.strength, row.ref.role, row.lambda_) for row in plan] == [
        ("img2img", 0.5, ("init",), None)
    ] * 2


def test_a_row_with_its_own_reference_meets_only_that(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "own.png")
    rows = [
        {"id": "a", "class": "Pug", "prompt": "x", "ref": {"path": "own.png"}},
        {"id": "b", "class": "Pug", "prompt": "x", "ref": {"id": "petworld/Beagle/0-5", "label": 0}},
        {"id": "c", "class": "Pug", "prompt": "x", "ref": {"path": "own.png", "role": ["init"]},
         "mode": "img2img", "strength": 0.5},
    ]  # fmt: skip
    scorer = CountingScorer()
    first, second, third = make_plan(tmp_path, rows, shots=3, scorer=scorer, policy="ags")
    assert (first.id, first.ref.path, first.score, first.lambda_bin) == ("a", "own.png", 0.9, "high")
    assert (second.ref.id, second.label, second.score) == ("petworld/Beagle/0-5", 2, 0.1), "scored as its class"
    assert third.lambda_ is None and third.ref.role == ("init",), "an init image is no image prompt"
    assert set(scorer.asked) == {"own.png", "petworld/Beagle/0-5"}


def test_latent_rows_are_not_paired(tmp_path):
    init = {"kind": "circle", "refs": ["petworld/Pug/0-0", "petworld/Pug/0-1"]}
    (row,) = make_plan(tmp_path, prompts(1, "Pug", mode="latent", init=init), shots=3)
    assert row.id == "Pug-0" and row.ref is None and row.lambda_null
    with pytest.raises(ReferenceImageError, match="bank.jsonl:2: row 'Pug-0': lambda without a reference"):
        make_plan(tmp_path, prompts(1, "Pug", mode="latent", init=init, **{"lambda": 0.5}))


def test_image_rows_pass_through_but_for_what_the_run_asks(tmp_path):
    full = Row(
        id="i", class_="Pug", prompt="x", label=2, seed=5, lambda_=0.3, score=0.8, lambda_mu=0.2,
        lambda_sigma=0.05, lambda_bin="high", lambda_sampler="truncnorm",
        ref=find_references("petworld", open_bank(write_bank(tmp_path, [])).header, bank_dir=tmp_path)
        .of_class("Pug")[0].as_ref(),
    )  # fmt: skip
    rows = [full.to_json()]
    assert make_plan(tmp_path, rows, defaults={"prefix": "p ", "policy": "uniform"}) == [full]
    (row,) = make_plan(tmp_path, rows, policy=0.9, overrides={"steps": 4}, defaults={"method": "m"})
    assert row == replace(full, lambda_=0.9, steps=4, method="m", lambda_mu=None, lambda_sigma=None,
                          lambda_bin=None, lambda_sampler=None)  # fmt: skip
    (row,) = make_plan(tmp_path, rows, policy="ags")
    assert row.lambda_mu == pytest.approx(0.16) and row.score == 0.8, "the score it brings is kept"


def test_rows_are_counted_without_scores(tmp_path):
    rows = [
        *prompts(3),
        *prompts(2, "Pug", **{"lambda": None}),
        *prompts(1, "Bombay", mode="img2img", strength=1),
    ]
    bank = open_bank(write_bank(tmp_path, rows))
    for shots in (1, 3):
        found = find_references("petworld", bank.header, bank_dir=tmp_path, shots=shots)
        plan = list(plan_rows(bank, found, scorer=CountingScorer(), shots=shots))
        assert count_rows(bank, found) == len(plan) == 4 * shots + 2
        assert count_rows(bank, found, limit=4) == 4 and count_rows(bank, found, limit=99) == len(plan)


def test_memory_does_not_grow_with_the_bank(tmp_path):
    """The plan of an endless bank gives its first rows at once."""

    class Endless:
        header = open_bank(write_bank(tmp_path, prompts(1))).header
        path = tmp_path / "bank.jsonl"

        def rows(self):
            line = 1
            while True:
                line += 1
                yield line, Row(class_="Pug", prompt="x", label=2)

    found = find_references("petworld", Endless.header, bank_dir=tmp_path, shots=2)
    plan = plan_rows(Endless(), found, policy="uniform", limit=5)
    assert [row.id for row in plan][-1] == "line-00000004~0-0"


def test_what_only_the_references_know_is_checked_with_the_bank(tmp_path):
    folder = tmp_path / "refs"
    (folder / "pug").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "pug" / "1.png")
    rows = [
        *prompts(1, "Pug"),
        *prompts(1, "Bombay"),
        *prompts(1, "Beagle", **{"lambda": None}),
        {"class": "Pug", "prompt": "x", "ref": {"id": "pug/1.png"}},
        {"class": "Pug", "prompt": "x", "ref": {"id": "pug/2.png"}},
        {
            "class": "Pug",
            "prompt": "x",
            "mode": "latent",
            "init": {"kind": "circle", "refs": ["pug/1.png", "z"]},
        },
    ]
    path = write_bank(tmp_path, rows)
    header = open_bank(path).header
    check = reference_check(find_references(folder, header, bank_dir=tmp_path), header)
    with pytest.raises(BankError) as error:
        check_bank(path, refs=folder, row_check=check)
    found = str(error.value).split("\n")
    assert len(found) == 3
    assert "bank.jsonl:3: field 'class': got \"Bombay\", allowed: a class with references;" in found[0]
    assert "bank.jsonl:6: field 'ref.id'" in found[1] and "bank.jsonl:7: field 'init.refs[1]'" in found[2]


@pytest.mark.parametrize("name", ["pets", "pets-base"])
def test_the_shipped_banks_plan(name):
    from pathlib import Path

    path = Path(__file__).resolve().parents[2] / "prompts" / f"{name}.jsonl"
    bank = open_bank(path)
    found = find_references(None, bank.header, bank_dir=path.parent)
    assert check_bank(path, row_check=reference_check(found, bank.header)).count == count_rows(bank, found)
    row = next(plan_rows(bank, found, scorer=lambda reference: 0.95))
    assert row.prompt.startswith("best quality, high quality, ") and row.is_image_row
    assert 0.1 <= row.lambda_ <= 0.4 and row.negative_prompt.startswith("monochrome")
