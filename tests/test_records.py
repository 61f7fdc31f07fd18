"""Every field of a header and a row: what is accepted, what is refused, and with which words."""

import math
from dataclasses import replace

import pytest

from fastgen.errors import BankError, DataError, FastgenError, FieldErrors, Interrupted
from fastgen.fields import parse_object, show
from fastgen.records import ROW_FIELDS, Adapter, Attrs, Header, Init, LambdaPolicy, Ref, Row

HEADER = Header(name="pets", classes=("tabby cat", "pug", "beagle"))
FULL = {
    "id": "a/1", "class": "pug", "label": 1, "prompt": "a pug é", "negative_prompt": "", "seed": 2**64 - 1,
    "mode": "img2img", "ref": {"id": "r1", "path": "pug/1.png", "label": 2, "role": ["ip", "init"],
    "fit": "center_crop", "size": [500, 333]},
        "lambda": 0.25,
    "score": 0.5, "strength": 1.0, "adapters": [{"name": "style", "target": "unet", "scale": -0.5}],
    "guidance_scale": 7.5, "guidance_interval": [0.1, 0.6], "steps": 30, "scheduler": "ddim",
    "width": 64, "height": 4096,
    "labels": [[0, 0.25], [1, 0.75]], "prompt_late": "late", "switch": 0.3, "domain": "sketch",
    "attrs": {"background": "beach", "pose": "sitting", "donor_id": "d", "donor_label": 0}, "round": 0,
        "parent": "p",
    "method": "llm", "tags": {"a": [1, None, {"b": "c"}]}, "lambda_mu": 0.2, "lambda_sigma": 0.05,
        "lambda_bin": "high",
    "lambda_sampler": "truncnorm",
}  # fmt: skip


def row(header=HEADER, **fields):
    return Row.from_json({"class": "pug", "prompt": "a pug", **fields}, header)


def test_every_field_survives_a_round_trip():
    found = Row.from_json(FULL, HEADER)
    assert found.to_json() == FULL
    assert list(found.to_json()) == [name for name in ROW_FIELDS if name not in ("init", "shot")]
    assert Row.from_json(found.to_json(), None) == found
    assert found.ref == Ref(id="r1", path="pug/1.png", label=2, role=("ip", "init"), fit="center_crop", size=(500, 333))
    assert found.adapters == (Adapter(name="style", target="unet", scale=-0.5),)
    assert found.attrs == Attrs(background="beach", pose="sitting", donor_id="d", donor_label=0)
    assert found.labels == ((0, 0.25), (1, 0.75))
    latent = row(mode="latent", init={"kind": "circle", "refs": ["a", "b"]})
    assert latent.init == Init(kind="circle", refs=("a", "b"), alpha=None, inv_steps=200)
    assert Row.from_json(latent.to_json(), HEADER) == latent


def test_a_prompt_row_needs_class_and_prompt_only():
    found = row()
    assert found == Row(class_="pug", prompt="a pug", label=1)
    assert found.to_json() == {"class": "pug", "label": 1, "prompt": "a pug"}
    assert row(seed=None, ref=None, tags=None) == found


@pytest.mark.parametrize(
    "value, parsed, written",
    [
        (1, 1.0, 1.0),
        ({"policy": "ags"}, LambdaPolicy(policy="ags"), {"policy": "ags"}),
        ({"policy": "ags", "n": 16}, LambdaPolicy(policy="ags", n=16), {"policy": "ags", "n": 16}),
        ({"policy": "ags", "sampler": "clipnorm", "per": "reference"},
         LambdaPolicy(policy="ags", sampler="clipnorm", per="reference"),
         {"policy": "ags", "sampler": "clipnorm", "per": "reference"}),
        ({"policy": "uniform"}, LambdaPolicy(policy="uniform"), {"policy": "uniform", "lo": 0.0, "hi": 1.0}),
        ({"policy": "uniform", "lo": 0.5, "hi": 2}, LambdaPolicy(policy="uniform", lo=0.5, hi=2.0),
         {"policy": "uniform", "lo": 0.5, "hi": 2.0}),
    ],
)  # fmt: skip
def test_lambda_forms(value, parsed, written):
    found = row(**{"lambda": value})
    assert found.lambda_ == parsed and not found.lambda_null
    assert found.to_json()["lambda"] == written


def test_lambda_null_is_not_lambda_left_out():
    assert row(**{"lambda": None}).lambda_null and not row().lambda_null
    assert row(**{"lambda": None}).to_json()["lambda"] is None
    assert Row.from_json(row(**{"lambda": None}).to_json(), HEADER).lambda_null


REF, INIT_REF = {"id": "r"}, {"id": "r", "role": ["init"]}


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({}, False),
        ({"seed": 1}, False),
        ({"seed": 1, "ref": REF}, False),
        ({"lambda": 0.5, "ref": REF}, False),
        ({"seed": 1, "lambda": 0.5}, False),
        ({"seed": 1, "lambda": {"policy": "ags"}, "ref": REF}, False),
        ({"seed": 0, "lambda": 0, "ref": REF}, True),
        ({"seed": 1, "lambda": None}, True),
        ({"seed": 1, "lambda": None, "ref": REF}, True),
        ({"seed": 1, "ref": INIT_REF}, True),
    ],
)
def test_image_rows_are_those_with_nothing_left_to_plan(fields, expected):
    assert row(**fields).is_image_row is expected


BAD_ROWS = [
    ("id", "", "text that is not empty of at most 500 characters without control characters"),
    ("id", "a\nb", "without control characters"),
    ("id", "x" * 501, "at most 500"),
    ("id", 7, "text that is not empty"),
    ("class", "Pug", "did you mean 'pug'? a class of the header: tabby cat, pug, beagle"),
    ("class", 3, "text that is not empty"),
    ("label", 2, '1, the header\'s index of class "pug"'),
    ("label", True, "a whole number from 0"),
    ("label", "1", "a whole number from 0"),
    ("prompt", "  ", "text that is not empty"),
    ("prompt", "a\0b", "without NUL"),
    ("prompt", "\ud800", "without NUL"),
    ("negative_prompt", 0, "text without NUL"),
    ("seed", -1, "a whole number from 0 to 18446744073709551615"),
    ("seed", 2**64, "a whole number from 0 to 18446744073709551615"),
    ("seed", 1.0, "a whole number from 0 to 18446744073709551615"),
    ("seed", True, "a whole number from 0 to 18446744073709551615"),
    ("mode", "img2im", '"t2i" or "img2img" or "latent" (did you mean \'img2img\'?)'),
    ("mode", ["t2i"], '"t2i" or "img2img" or "latent"'),
    ("ref", "cat.png", "an object with the fields id, path, label, role"),
    ("lambda", -0.1, 'a number from 0 to 2, {"policy": "ags", "n": 1}'),
    ("lambda", 2.01, "a number from 0 to 2"),
    ("lambda", math.nan, "a number from 0 to 2"),
    ("lambda", True, "a number from 0 to 2"),
    ("lambda", "ags", '{"policy": "ags", "n": 1}, {"policy": "uniform", "lo": 0, "hi": 1} or null'),
    ("score", 2.6, "a number from -1 to 2.5"),
    ("shot", -1, "a whole number from 0"),
    ("shot", 0, "a number below the header's defaults.shots (which is not given), in a row without ref"),
    ("strength", 0, "a number above 0 up to 1"),
    ("strength", 1.1, "a number above 0 up to 1"),
    ("adapters", {"name": "x"}, "a list of"),
    ("guidance_scale", -1, "a number from 0 to 100"),
    ("guidance_scale", math.inf, "a number from 0 to 100"),
    ("guidance_scale", 10**400, "a number from 0 to 100"),
    ("steps", 0, "a whole number from 1 to 1000"),
    ("steps", 30.0, "a whole number from 1 to 1000"),
    ("steps", "30", "a whole number from 1 to 1000"),
    ("scheduler", "", "text that is not empty of at most 64"),
    ("width", 100, "a whole number from 8 to 4096 that is a multiple of 8"),
    ("height", 0, "a whole number from 8 to 4096 that is a multiple of 8"),
    ("labels", [], "a list of [label, weight] pairs"),
    ("labels", [[0, 0.5], [1, 0.6]], "these sum to 1.1"),
    ("labels", [[0, 0], [1, 0.0]], "above 0; these sum to 0"),
    ("labels", [[0, 0.5], [0, 0.5]], "each label once"),
    ("labels", [[0, 1, 2]], "a list of [label, weight] pairs"),
    ("prompt_late", "", "text that is not empty"),
    ("switch", 1.2, "a number from 0 to 1"),
    ("domain", [], "text that is not empty"),
    ("attrs", "beach", "an object with the fields background, pose, donor_id, donor_label"),
    ("round", -1, "a whole number from 0"),
    ("tags", ["a"], "an object of JSON values"),
    ("tags", {"a": math.inf}, "an object of JSON values"),
    ("tags", {"a": "\0"}, "an object of JSON values"),
]


@pytest.mark.parametrize("name, value, allowed", BAD_ROWS, ids=lambda v: show(v, width=24))
def test_a_bad_value_is_named_with_what_is_allowed(name, value, allowed):
    with pytest.raises(FieldErrors) as caught:
        row(**{name: value})
    (problem,) = [p for p in caught.value.problems if p.field == name]
    assert problem.got == show(value)
    assert allowed in problem.allowed
    assert f"field {name!r}: got {problem.got}, allowed: " in str(caught.value)


NESTED = [
    ({"ref": {}}, "ref.id", "nothing", "the id or the path"),
    ({"ref": {"id": "r", "pth": "x"}}, "ref.pth", "an unknown field", "did you mean 'path'?"),
    ({"ref": {"path": "/etc/passwd"}}, "ref.path", '"/etc/passwd"', "without '..'"),
    ({"ref": {"path": "a/../../b.png"}}, "ref.path", '"a/../../b.png"', "without '..'"),
    ({"ref": {"path": "C:/b.png"}}, "ref.path", '"C:/b.png"', "a path relative to"),
    ({"ref": {"path": "a\\b.png"}}, "ref.path", '"a\\\\b.png"', "with / between names"),
    ({"ref": {"path": "."}}, "ref.path", '"."', "a path relative to"),
    ({"ref": {"id": "r", "role": ["ap"]}}, "ref.role", '["ap"]', '["ip"], ["init"]'),
    ({"ref": {"id": "r", "role": []}}, "ref.role", "[]", '["ip"], ["init"]'),
    ({"ref": {"id": "r", "label": 3}}, "ref.label", "3",
        "a whole number from 0 to 2: the header has 3 classes"),
    ({"lambda": {"n": 1}}, "lambda.policy", "nothing", "lambda needs its policy"),
    ({"lambda": {"policy": "asg"}}, "lambda.policy", '"asg"', '"ags" or "uniform" (did you mean \'ags\'?)'),
    ({"lambda": {"policy": "ags", "n": 0}}, "lambda.n", "0", "a whole number from 1"),
    ({"lambda": {"policy": "ags", "lo": 0}}, "lambda.lo", "an unknown field", "policy, n"),
    ({"lambda": {"policy": "uniform", "n": 1}}, "lambda.n", "an unknown field", "policy, lo, hi"),
    ({"lambda": {"policy": "uniform", "lo": 1, "hi": 0.5}}, "lambda.lo", "1.0", "from 0 to hi (0.5)"),
    ({"lambda": {"policy": "uniform", "hi": 3}}, "lambda.hi", "3", "a number from 0 to 2"),
    ({"adapters": [{"name": "x"}]}, "adapters[0].target", "nothing", "its name and its target"),
    ({"adapters": [{"name": "x", "target": "vae"}]}, "adapters[0].target", '"vae"',
        '"unet" or "text" or "ti"'),
    ({"adapters": [7]}, "adapters[0]", "7", "an object with the fields name, target, scale"),
    ({"labels": [[5, 1]]}, "labels[0][0]", "5", "a whole number from 0 to 2"),
    ({"labels": [[0, -1]]}, "labels[0][1]", "-1", "a number from 0 to 1"),
    ({"labels": [[True, 1]]}, "labels[0][0]", "true", "a whole number"),
    ({"attrs": {"donor_label": 9}}, "attrs.donor_label", "9", "from 0 to 2"),
    ({"attrs": {"pse": "x"}}, "attrs.pse", "an unknown field", "did you mean 'pose'?"),
    ({"mode": "img2img"}, "strength", "nothing", "which mode img2img needs"),
    ({"mode": "latent"}, "init", "nothing", "exactly when mode is latent"),
    ({"init": {"kind": "circle", "refs": ["a", "b"]}}, "init", "an init", "exactly when mode is latent"),
    ({"mode": "latent", "init": {"kind": "line", "refs": ["a", "b"]}}, "init.kind", '"line"', '"circle"'),
    ({"mode": "latent", "init": {"kind": "circle", "refs": ["a"]}}, "init.refs", '["a"]',
        "two reference ids"),
    ({"prompt_late": "x"}, "switch", "nothing", "which prompt_late needs"),
    ({"promt": "x"}, "promt", "an unknown field", "did you mean 'prompt'?"),
    ({"class": None}, "class", "nothing", "every row needs its class"),
    ({"prompt": None}, "prompt", "nothing", "every row needs its class"),
]  # fmt: skip


@pytest.mark.parametrize(
    "fields, name, got, allowed", NESTED, ids=[case[1] + "-" + case[2] for case in NESTED]
)
def test_nested_and_joint_problems(fields, name, got, allowed):
    with pytest.raises(FieldErrors) as caught:
        row(**fields)
    assert [(p.field, p.got) for p in caught.value.problems] == [(name, got)]
    assert allowed in caught.value.problems[0].allowed


def test_all_bad_fields_of_a_row_are_reported_at_once():
    with pytest.raises(FieldErrors) as caught:
        row(seed=-1, steps=0, wdth=8, ref={"id": "", "label": -1})
    assert {p.field for p in caught.value.problems} == {"seed", "steps", "wdth", "ref.id", "ref.label"}


def test_a_reference_may_be_named_by_its_path_and_have_one_role_as_text():
    assert row(ref={"path": "a/b.png", "role": "init"}).ref == Ref(
        id="a/b.png", path="a/b.png", role=("init",)
    )


def test_a_label_sum_may_be_off_by_rounding():
    assert row(labels=[[0, 0.333], [1, 0.333], [2, 0.333]]).labels[2] == (2, 0.333)


def test_defaults_fill_in_what_the_row_leaves_out():
    header = Header.from_json({
        "fastgen_bank": 1, "name": "p", "classes": ["pug"], "score_template": "{class}!",
            "provenance": {"by": "me"},
        "defaults": {"steps": 4, "guidance_scale": 2, "lambda": {"policy": "ags", "n": 2}, "refs": "petworld",
                     "shots": 2, "prefix": "best quality, ", "negative_prompt": "low", "mode": "img2img",
                     "strength": 0.5, "adapters": [{"name": "x", "target": "ti"}], "width": None},
    })  # fmt: skip
    assert Header.from_json(header.to_json()) == header
    defaults = header.row_defaults()
    filled = row(header, steps=9, negative_prompt="").with_defaults(defaults)
    assert (filled.steps, filled.guidance_scale, filled.negative_prompt) == (9, 2.0, "")
    assert filled.lambda_ == LambdaPolicy(policy="ags", n=2)
    assert filled.adapters == (Adapter(name="x", target="ti"),)
    assert row(header, **{"lambda": None}).with_defaults(defaults).lambda_ is None
    assert row(header, **{"lambda": 0}).with_defaults(defaults).lambda_ == 0.0
    assert replace(filled) == filled


BAD_HEADERS = [
    ({}, "fastgen_bank", "nothing", "line 1 must be the header"),
    ({"fastgen_bank": 2}, "fastgen_bank", "2", "1, the only format version"),
    ({"fastgen_bank": True}, "fastgen_bank", "true", "1, the only format version"),
    ({"name": ""}, "name", '""', "text that is not empty"),
    ({"name": None}, "name", "nothing", "the header needs it"),
    ({"classes": None}, "classes", "nothing", "the header needs it"),
    ({"classes": []}, "classes", "[]", "a list of at least one class name"),
    ({"classes": "cat"}, "classes", '"cat"', "a list of at least one class name"),
    ({"classes": ["a", "b", "a"]}, "classes[2]", '"a"', "each class once; classes[0] is the same"),
    ({"classes": ["a", 1]}, "classes[1]", "1", "text that is not empty"),
    ({"score_template": "a photo"}, "score_template", '"a photo"', "text with {class}"),
    ({"clases": []}, "clases", "an unknown field", "did you mean 'classes'?"),
    ({"defaults": []}, "defaults", "[]", "an object"),
    ({"defaults": {"step": 3}}, "defaults.step", "an unknown field", "did you mean 'steps'?"),
    ({"defaults": {"steps": "3"}}, "defaults.steps", '"3"', "a whole number from 1 to 1000"),
    ({"defaults": {"seed": 3}}, "defaults.seed", "an unknown field", "refs, policy, shots, prefix"),
    ({"defaults": {"refs": "../x"}}, "defaults.refs", '"../x"', "without '..'"),
    ({"defaults": {"ags": {"sampler": "normal"}}}, "defaults.ags.sampler", '"normal"', '"truncnorm" or "clipnorm"'),
    ({"defaults": {"ags": {"score": "cos"}}}, "defaults.ags.score", '"cos"', '"softmax" or "cosine" or "clipscore"'),
    ({"defaults": {"ags": {"alpha": 1}}}, "defaults.ags.alpha", "an unknown field", "sampler, high_max, low_if, per"),
    ({"defaults": {"ref_fit": "crop"}}, "defaults.ref_fit", '"crop"', '"squash" or "center_crop"'),
    ({"defaults": {"seed_mode": "rows"}}, "defaults.seed_mode", '"rows"', '"row" or "stream"'),
    ({"defaults": {"policy": "agz"}}, "defaults.policy", '"agz"', '"ags", "uniform" or a number from 0 to 2'),
    ({"defaults": {"policy": 0.5, "lambda": 1}}, "defaults.policy", "0.5", "policy or lambda, not both"),
    ({"provenance": {"x": math.nan}}, "provenance", '{"x": NaN}', "an object of JSON values"),
]


@pytest.mark.parametrize(
    "fields, name, got, allowed", BAD_HEADERS, ids=[f"{c[1]}-{c[2]}" for c in BAD_HEADERS]
)
def test_bad_headers(fields, name, got, allowed):
    good = {"fastgen_bank": 1, "name": "pets", "classes": ["pug"]}
    with pytest.raises(FieldErrors) as caught:
        Header.from_json({**good, **fields} if fields else {"name": "pets"})
    assert [(p.field, p.got) for p in caught.value.problems] == [(name, got)]
    assert allowed in caught.value.problems[0].allowed


def test_labels_follow_the_order_of_the_classes():
    assert [HEADER.label_of(c) for c in ("tabby cat", "beagle", "cat")] == [0, 2, None]


@pytest.mark.parametrize(
    "text, field, words",
    [
        ('{"a": 1, "b": 2, "a": 3}', "a", 'the key "a" 2 times'),
        ('{"x": {"b": 1, "b": 2}}', "b", "each key once; delete all but one"),
        ('{"a": NaN}', "line", "JSON has no NaN"),
        ('{"a": -Infinity}', "line", "got -Infinity"),
        ('{"a": 1', "line", "JSON ends at column"),
        ("{'a': 1}", "line", "one JSON object"),
        ("[1]", "line", "got [1], allowed: one JSON object"),
        ("[" * 100_000, "line", "one JSON object"),
        ('{"a": ' + "9" * 5000 + "}", "line", "one JSON object"),
    ],
)
def test_text_that_is_not_one_strict_object(text, field, words):
    with pytest.raises(FieldErrors) as caught:
        parse_object(text)
    assert caught.value.problems[0].field == field
    assert words in str(caught.value)
    assert len(str(caught.value)) < 400


def test_numbers_that_overflow_are_refused_as_infinite():
    with pytest.raises(FieldErrors, match="a number from 0 to 100"):
        Row.from_json(parse_object('{"class": "pug", "prompt": "x", "guidance_scale": 1e999}'), HEADER)


def test_values_are_shown_short_and_safe_for_a_terminal():
    assert show("\x1b[31m\x9b") == '"\\u001b[31m\\u009b"'
    assert show("x" * 100, width=10) == '"xxxxxx...'
    assert show("Kätzchen") == '"Kätzchen"'
    assert show("\ud800") == '"\\ud800"'
    assert show(object()) == "a value of type object"


def test_exit_codes_and_long_lists():
    assert (FastgenError.exit_code, BankError.exit_code, DataError.exit_code, Interrupted.exit_code) == (
        2,
        2,
        1,
        75,
    )
    assert str(BankError(["a", "b"])) == "a\nb"
    many = BankError([f"p{i}" for i in range(30)], total=45)
    assert str(many).splitlines()[-2:] == ["p19", "... and 25 more"]
    assert str(BankError(["a"], total=5, more_possible=True)).endswith("... and at least 4 more")
