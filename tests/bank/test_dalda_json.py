"""The official code's prompt file as a bank: keys are classes, sentences stay as they are, doubts are said."""

import json

import pytest

from fastgen.bank.dalda_json import import_dalda_bank
from fastgen.bank.read import check_bank
from fastgen.errors import BankError, ModelError

PROMPTS = {"maine coon": ["A maine coon on a wall.", "A maine coon {asleep}."], "pug": ["A pug.", "Two pugs, café."]}


def imported(tmp_path, content, **options):
    """The header, the prompts by id, and what was said."""
    path = tmp_path / "llm_prompt_pets_10.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding="utf-8")
    said = []
    bank = check_bank(import_dalda_bank(path, tmp_path / "bank.jsonl", say=said.append, **options))
    return bank.header, [(row.id, row.label, row.class_, row.prompt) for _, row in bank.rows()], said


def test_a_good_file(tmp_path):
    header, rows, said = imported(tmp_path, PROMPTS, refs="petworld")
    assert header.classes == ("maine coon", "pug")
    assert header.name == "bank"
    assert header.defaults == {
        "refs": "petworld",
        "shots": 1,
        "policy": "ags",
        "prefix": "best quality, high quality, ",
        "negative_prompt": "monochrome, lowres, bad anatomy, worst quality, low quality",
        "scheduler": "ddim",
        "method": "dalda",
    }
    assert header.provenance["kind"] == "dalda json"
    assert header.provenance["file"] == "llm_prompt_pets_10.json"
    assert rows == [
        ("00000-000", 0, "maine coon", "A maine coon on a wall."),
        ("00000-001", 0, "maine coon", "A maine coon {asleep}."),
        ("00001-000", 1, "pug", "A pug."),
        ("00001-001", 1, "pug", "Two pugs, café."),
    ]
    assert said == []


def test_the_defaults_are_those_of_the_shipped_bank(tmp_path, request):
    shipped = json.loads((request.config.rootpath / "prompts" / "pets.jsonl").read_text("utf-8").splitlines()[0])
    assert imported(tmp_path, PROMPTS, refs="petworld")[0].defaults == shipped["defaults"]


def test_doubts_are_said_and_imported(tmp_path):
    long = "A pug " + "in the grass " * 30
    content = {**PROMPTS, "pug": ["A dog.", "A pug and a maine coon.", "A dog.", long]}
    _, rows, said = imported(tmp_path, content)
    assert len(rows) == 6
    assert said == [
        "warning: 1 classes have another number of sentences than most",
        "  pug: 4, not 2",
        "warning: 3 sentences do not fit their class",
        "  row 00001-000 (pug): it does not contain the class name 'pug'",
        "  row 00001-001 (pug): it names another class: maine coon",
        "  row 00001-002 (pug): it repeats an earlier one",
        "warning: 1 prompts are not read to their end",
        "  row 00001-003 (pug): 100 tokens with the prefix, of which 77 are read",
    ]


def test_many_doubts_are_counted(tmp_path):
    said = imported(tmp_path, {f"class {i}": ["a photo"] for i in range(25)})[2]
    assert said[0] == "warning: 25 sentences do not fit their class"
    assert said[-1] == "  ... and 5 more"
    assert len(said) == 22


def test_utf8_read_as_latin1_by_the_official_script_is_repaired(tmp_path):
    right = "A pug at a café, it\N{RIGHT SINGLE QUOTATION MARK}s raining."
    wrong = right.encode().decode("unicode_escape")
    assert wrong != right
    _, rows, said = imported(tmp_path, {"pug": [wrong, "Crème brûlée for a pug."]})
    assert [prompt for *_, prompt in rows] == [right, "Crème brûlée for a pug."]
    assert said == ["warning: 1 sentences were in the wrong encoding and are repaired", f"  pug[0]: {right}"]


@pytest.mark.parametrize(
    "content, message",
    [
        ("[]", "got [], allowed: {class: [sentences]} as JSON"),
        ("{", "(JSON ends at column 2: "),
        ("{}", "got {}, allowed: {class: [sentences]} as JSON"),
        ('{"pug": "A pug."}', "field 'pug': got \"A pug.\", allowed: a list of at least one sentence"),
        ('{"pug": []}', "field 'pug': got [], allowed: a list"),
        ('{"pug": ["A pug.", 3]}', "field 'pug[1]': got 3, allowed: text"),
        ('{"pug": ["a"], "pug": ["b"]}', 'the key "pug" 2 times'),
        ('{"": ["a"]}', "classes[0]"),
    ],
)
def test_bad_files_write_nothing(tmp_path, content, message):
    with pytest.raises(BankError) as caught:
        imported(tmp_path, content)
    assert message in str(caught.value)
    assert "llm_prompt_pets_10.json: " in str(caught.value)
    assert not (tmp_path / "bank.jsonl").exists()


def test_bytes_that_are_not_utf8(tmp_path):
    (tmp_path / "x.json").write_bytes(b'{"pug": ["caf\xe9"]}')
    with pytest.raises(BankError, match="x.json: got bytes that are not UTF-8"):
        import_dalda_bank(tmp_path / "x.json", tmp_path / "bank.jsonl")


def test_a_tokenizer_that_is_none(tmp_path):
    with pytest.raises(ModelError, match="holds no tokenizer_config.json"):
        imported(tmp_path, PROMPTS, tokenizer=tmp_path)
