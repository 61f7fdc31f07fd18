"""Files of captions: what is read, what is refused, and the sentences made of them."""

import json

import pytest

from fastgen.bank.caption_text import BOB_TEMPLATE, PLAIN_TEMPLATE, attribute_names, caption_text
from fastgen.bank.captions import attributes_sha256, read_captions
from fastgen.errors import BankError
from fastgen.petworld.dataset import export


def write(path, *lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


GOOD = {"file_name": "pug/1.png", "background": "snow", "pose": "running"}


def test_petworlds_export_is_a_file_of_captions(tmp_path):
    export(tmp_path / "world", classes=["Pug", "Beagle"], per_class=3, test_per_class=1, say=lambda line: None)
    found = read_captions(tmp_path / "world" / "train" / "metadata.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "world" / "train" / "metadata.jsonl").read_text().splitlines()]
    assert [(one.class_, one.attributes) for one in found] == [
        (line["breed"], {"background": line["background"], "pose": line["pose"]}) for line in lines
    ]
    other = read_captions(tmp_path / "world" / "train" / "metadata.jsonl", attributes=["light"])
    assert other[0].attributes == {"light": lines[0]["light"]}
    with pytest.raises(BankError, match="of PetWorld: train/metadata.jsonl"):
        read_captions(tmp_path / "world" / "metadata.jsonl")  # it holds the test images too


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", ":1: the line: got"),
        ({"file_name": "pug/1.png", "background": "snow"}, ":1: field 'pose': got nothing"),
        ({**GOOD, "pose": " "}, ":1: field 'pose': got \" \""),
        ({**GOOD, "pose": "a\nb"}, "without control characters"),
        ({**GOOD, "file_name": "../x/1.png"}, "field 'file_name'"),
        ({**GOOD, "file_name": "1.png"}, "<class>/<image>"),
        ({**GOOD, "class": 3}, "field 'class'"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    with pytest.raises(BankError) as caught:
        read_captions(write(tmp_path / "c.jsonl", line))
    assert message in str(caught.value)


def test_all_bad_lines_are_listed_and_files_that_are_none(tmp_path):
    with pytest.raises(BankError) as caught:
        read_captions(write(tmp_path / "c.jsonl", {**GOOD, "pose": None}, GOOD, GOOD))
    assert len(caught.value.problems) == 2 and "line 2 has it already" in str(caught.value)
    with pytest.raises(BankError, match="got no captions"):
        read_captions(write(tmp_path / "c.jsonl"))
    with pytest.raises(BankError, match="cannot be read"):
        read_captions(tmp_path / "nowhere.jsonl")


def test_the_class_is_the_folder_or_the_field(tmp_path):
    found = read_captions(write(tmp_path / "c.jsonl", GOOD, {**GOOD, "file_name": "a/b/2.png", "class": "maine coon"}))
    assert [one.class_ for one in found] == ["pug", "maine coon"]
    other = read_captions(write(tmp_path / "d.jsonl", {**GOOD, "pose": "sitting"}))
    assert attributes_sha256(found[:1]) != attributes_sha256(other)
    assert attributes_sha256(found) == attributes_sha256(list(found))


def test_sentences_are_literal():
    context = {"background": "{class} sky", "pose": "landing"}
    text = caption_text(BOB_TEMPLATE, "747-400", context, descriptor="aircraft")
    assert text == "a aircraft photo of a 747-400 in the {class} sky background with the landing pose."
    assert caption_text(PLAIN_TEMPLATE, "pug") == "a photo of a pug"
    assert caption_text(PLAIN_TEMPLATE, "A380", descriptor="aircraft") == "a aircraft photo of a A380"
    assert caption_text(PLAIN_TEMPLATE, "A380", descriptor="aircraft", article="fix") == "an aircraft photo of an A380"


def test_templates_name_their_attributes():
    assert attribute_names(BOB_TEMPLATE) == ("background", "pose")
    assert attribute_names("a {class} at {time}") == ("time",)
    for bad in ("a photo", "a {class} {", "a {class} {}"):
        with pytest.raises(BankError, match="names in braces"):
            attribute_names(bad)
