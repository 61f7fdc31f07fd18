"""The base bank: every class in every template, with a header that defines the label ids."""

import pytest

from fastgen.bank.read import check_bank, open_bank
from fastgen.bank.template import write_template_bank
from fastgen.errors import BankError

CLASSES = ["tabby cat", "pug"]


def rows_of(path):
    return [row for _, row in open_bank(path).rows()]


def test_the_base_bank_is_a_photo_of_every_class(tmp_path):
    path = write_template_bank(
        CLASSES, tmp_path / "base.jsonl", defaults={"policy": "ags"}, provenance={"by": "test"}
    )
    found = check_bank(path)
    assert found.header.name == "base"
    assert found.header.classes == ("tabby cat", "pug")
    assert found.header.defaults == {"policy": "ags"}
    assert found.header.provenance["templates"] == ["a photo of a {class}"]
    assert found.header.provenance["by"] == "test"
    assert [(r.id, r.label, r.prompt) for r in rows_of(path)] == [
        ("00000-000", 0, "a photo of a tabby cat"),
        ("00001-000", 1, "a photo of a pug"),
    ]
    assert not any(r.is_image_row for r in rows_of(path))


def test_templates_and_copies_multiply(tmp_path):
    path = write_template_bank(
        CLASSES,
        tmp_path / "b.jsonl",
        template=["{class}", "two {class}"],
        per_class=2,
        name="n",
        class_format="underscore",
    )
    assert open_bank(path).header.name == "n"
    assert [r.prompt for r in rows_of(path)] == [
        *["tabby_cat", "tabby_cat", "two tabby_cat", "two tabby_cat"],
        *["pug", "pug", "two pug", "two pug"],
    ]
    assert len({r.id for r in rows_of(path)}) == 8
    assert {r.class_ for r in rows_of(path)} == set(CLASSES)


def test_the_profiles_make_it_daldas_base_bank(tmp_path):
    """The name with spaces, as the paper writes it, or with underscores, as the code does."""
    for profile, prompt in (("dalda-paper", "a photo of a tabby cat"), ("dalda-official", "a photo of a tabby_cat")):
        path = write_template_bank(CLASSES, tmp_path / "b.jsonl", profile=profile, defaults={"prefix": "", "steps": 9})
        header, rows = open_bank(path).header, rows_of(path)
        assert (rows[0].prompt, rows[0].method, rows[0].class_) == (prompt, "dalda-base", "tabby cat")
        assert header.provenance["profile"] == profile
        assert header.defaults["prefix"] == "" and header.defaults["steps"] == 9
        assert header.defaults["negative_prompt"] == "monochrome, lowres, bad anatomy, worst quality, low quality"
        assert (header.defaults["scheduler"], header.defaults["policy"]) == ("ddim", "ags")
        assert ("ags" in header.defaults) == (profile == "dalda-official")
    plain = write_template_bank(CLASSES, tmp_path / "b.jsonl", profile="dalda-official", class_format="plain")
    assert rows_of(plain)[0].prompt == "a photo of a tabby cat"


def test_names_with_braces_are_put_in_as_they_are(tmp_path):
    path = write_template_bank(["{odd} {class}", "ä%s"], tmp_path / "b.jsonl")
    assert [r.prompt for r in rows_of(path)] == ["a photo of a {odd} {class}", "a photo of a ä%s"]


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    first = write_template_bank(CLASSES, tmp_path / "x" / "b.jsonl").read_bytes()
    assert write_template_bank(CLASSES, tmp_path / "y" / "b.jsonl").read_bytes() == first


@pytest.mark.parametrize(
    "classes, options, message",
    [
        (CLASSES, {"template": "a photo"}, "got 'a photo', allowed: text with {class}"),
        (CLASSES, {"template": "a {name} {class}"}, "with {name}, allowed: text with {class} and no other"),
        (CLASSES, {"template": []}, "template: got none"),
        (CLASSES, {"class_format": "snake"}, "class_format: got 'snake', allowed: plain, underscore"),
        (CLASSES, {"per_class": 0}, "per_class: got 0, allowed: a whole number from 1"),
        (CLASSES, {"score_template": "x"}, "b.jsonl:1: field 'score_template': got \"x\""),
        (CLASSES, {"defaults": {"stps": 1}}, "b.jsonl:1: field 'defaults.stps': got an unknown field"),
        (CLASSES, {"name": ""}, "b.jsonl:1: field 'name': got \"\""),
        ([], {}, "b.jsonl:1: field 'classes': got [], allowed: a list of at least one"),
        (["pug", "pug"], {}, "b.jsonl:1: field 'classes[1]': got \"pug\", allowed: each class once"),
        (["pug", 3], {}, "b.jsonl:1: field 'classes[1]': got 3"),
    ],
)
def test_bad_arguments_write_nothing(tmp_path, classes, options, message):
    with pytest.raises(BankError) as caught:
        write_template_bank(classes, tmp_path / "b.jsonl", **options)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []
