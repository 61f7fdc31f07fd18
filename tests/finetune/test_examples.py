"""Pictures and their captions: which file is read, what is refused, what a caption says."""

import json

import pytest

from fastgen.class_words import word_of
from fastgen.errors import FastgenError
from fastgen.finetune.examples import read_examples
from fastgen.finetune.wording import BOB, DATADREAM, PHOTOS, fill, placeholders
from tests.finetune.pets import make_pets

NEEDED = ("background", "pose")


def test_petworlds_own_export_has_captions(tmp_path):
    from fastgen.petworld.dataset import export

    options = {"classes": ["Pug", "Maine Coon"], "split": "few-shot", "shots": 2, "test_per_class": 1}
    export(tmp_path / "world", **options, say=lambda line: None)
    examples = read_examples(tmp_path / "world", needed=NEEDED)
    assert examples.classes == ("Maine Coon", "Pug") and len(examples.rows) == 4
    truth = [json.loads(line) for line in (tmp_path / "world" / "train" / "metadata.jsonl").read_text().splitlines()]
    by_name = {line["file_name"]: line for line in truth}
    for row in examples.rows:
        assert row.class_ == by_name[row.name]["breed"]
        assert row.attributes["background"] == by_name[row.name]["background"]
    whole = read_examples(tmp_path / "world", captions=tmp_path / "world" / "metadata.jsonl", needed=NEEDED)
    assert whole.sha256 == examples.sha256  # names from the export's own folder on, test pictures passed over


def test_captions_decide_the_hash_and_so_do_pictures(tmp_path):
    real = make_pets(tmp_path / "real")
    before = read_examples(real, needed=NEEDED)
    assert [row.class_ for row in before.rows] == ["Big Cat"] * 3 + ["Red Dog"] * 3
    few = read_examples(real, needed=NEEDED, shots=1, seed=3)
    assert len(few.rows) == 2 and few.sha256 != before.sha256
    text = (real / "captions.jsonl").read_text()
    (real / "captions.jsonl").write_text(text.replace("snow", "sand"))
    assert read_examples(real, needed=NEEDED).sha256 != before.sha256


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"pose": "lying"', '"pose": " "', r"Big_Cat/2.png: no pose; .*\n.*Red Dog/2.png: no pose"),
        ('"Big_Cat/1.png"', '"Big_Cat/7.png"', "Big_Cat/1.png: no line in the caption file"),
        ('"Big_Cat/1.png"', '"Big_Cat/0.png"', "captions.jsonl:2: Big_Cat/0.png occurs twice"),
        ('"Big_Cat/1.png",', '"Big_Cat/1.png", "breed": "Red Dog",', "says class 'Red Dog', its folder 'Big_Cat'"),
        ('"file_name"', '"name"', 'captions.jsonl:1: needed is a JSON object with "file_name"'),
        ('{"file_name"', '{"file_name', "not a line of JSON"),
    ],
)  # fmt: skip
def test_wrong_captions(tmp_path, old, new, message):
    real = make_pets(tmp_path / "real")
    text = (real / "captions.jsonl").read_text()
    assert old in text
    (real / "captions.jsonl").write_text(text.replace(old, new))
    with pytest.raises(FastgenError, match=message):
        read_examples(real, needed=NEEDED)


def test_damaged_pictures_are_named(tmp_path):
    real = make_pets(tmp_path / "real")
    (real / "Big_Cat" / "1.png").write_bytes(b"\x89PNG no picture")
    with pytest.raises(FastgenError, match="1.png: not a readable image"):
        read_examples(real)


def test_captions_are_literal_as_the_paper_trains_and_generates():
    """Mistake 8: "a aircraft" is not corrected, unless training and bank both ask for it; deviations 3 and 4."""
    values = {"descriptor": "aircraft", "class": "A300", "background": "airport", "pose": "taxiing"}
    assert fill(BOB, values) == "a aircraft photo of a A300 in the airport background with the taxiing pose."
    assert fill(BOB, values, article="fix").startswith("an aircraft photo of an A300 in the airport")
    assert fill(DATADREAM, {**values, "descriptor": ""}) == "a photo of a A300"
    assert placeholders(BOB) == ("descriptor", "class", "background", "pose")


def test_textual_inversion_captions():
    assert len(set(PHOTOS)) == 27
    for text in PHOTOS:
        assert placeholders(text) == ("class",) and any(word in text for word in ("photo", "picture", "image"))
    assert word_of("German Shorthaired") == word_of("german_shorthaired") == "<german_shorthaired>"
