"""The banks for Caltech-101 and Flowers102 keep the rules of DALDA's instruction."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fastgen.bank.read import check_bank

PROMPTS = Path(__file__).parents[1] / "prompts"
BANKS = {"caltech101": 101, "flowers102": 102}
PREFIX = "best quality, high quality, "

IRREGULAR = {
    "faces": r"face",
    "faces easy": r"closed-up face",
    "leopards": r"leopards?",
    "motorbikes": r"motorbikes?",
    "airplanes": r"airplanes?",
    "water lilly": r"water lil(?:y|ies)",
}
APART = {
    "car side": ("car", "side"),
    "cougar body": ("cougar", "body"),
    "cougar face": ("cougar", "face"),
    "crocodile head": ("crocodile", "head"),
    "flamingo head": ("flamingo", "heads?"),
}
"""Classes of two words that may stand apart; each sentence says both."""

def read(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    lines = (PROMPTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return json.loads(lines[0]), [json.loads(line) for line in lines[1:]]


def pattern(class_: str) -> str:
    """A regular expression for one or several of a class."""
    plural = f"{re.escape(class_[:-1])}(?:y|ies)" if class_.endswith("y") else f"{re.escape(class_)}(?:s|es)?"
    return rf"\b(?:{IRREGULAR.get(class_, plural)})\b"


def classes_said(text: str, classes: list[str]) -> list[str]:
    """Classes that a sentence names, longest first; what a longer name holds does not count again."""
    pairs = {name: words for name, words in APART.items() if name in classes}
    found = [
        name
        for name, words in pairs.items()
        if all(re.search(rf"\b(?:{word})\b", text, re.IGNORECASE) for word in words)
    ]
    for name in found:
        for word in APART[name]:
            text = re.sub(rf"\b(?:{word})\b", "#", text, flags=re.IGNORECASE)
    for class_ in sorted(set(classes) - pairs.keys(), key=lambda c: -len(pattern(c))):
        text, hits = re.subn(pattern(class_), "#", text, flags=re.IGNORECASE)
        found += [class_] * (hits > 0)
    return found


@pytest.mark.parametrize("name", BANKS)
def test_ten_sentences_of_every_class_in_order(name: str) -> None:
    header, rows = read(name)
    assert check_bank(PROMPTS / f"{name}.jsonl").count == len(rows) == 10 * BANKS[name]
    assert header["provenance"]["rows"] == len(rows) and header["provenance"]["written_by"]
    assert [row["class"] for row in rows[::10]] == header["classes"]
    for index, row in enumerate(rows):
        slug = row["class"].replace("'", "").replace(" ", "-")
        assert set(row) == {"id", "class", "prompt"}
        assert row["id"] == f"{name}-{slug}-{index % 10:02d}"


@pytest.mark.parametrize("name", BANKS)
def test_form(name: str) -> None:
    for text in (row["prompt"] for row in read(name)[1]):
        assert text.isascii() and text.isprintable() and not set(text) & set('{}[]"'), text
        assert 15 <= len(text.split()) <= 40 and text[0].isupper(), text
        assert text.endswith(".") and text.count(".") == 1 and "  " not in text, text


@pytest.mark.parametrize("name", BANKS)
def test_a_sentence_names_its_class_and_no_other(name: str) -> None:
    header, rows = read(name)
    for row in rows:
        assert classes_said(row["prompt"], header["classes"]) == [row["class"]], row


@pytest.mark.parametrize("name", BANKS)
def test_sentences_differ_also_without_the_class(name: str) -> None:
    rows = read(name)[1]
    bare = {re.sub(pattern(row["class"]), "#", row["prompt"], flags=re.IGNORECASE).lower() for row in rows}
    assert len(bare) == len(rows)
    openings = [" ".join(text.split()[:4]) for text in bare]
    assert max(openings.count(text) for text in set(openings)) <= len(rows) // 40


@pytest.mark.parametrize("name", BANKS)
def test_prompts_fit_into_77_tokens_with_the_prefix(name: str) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    header, rows = read(name)
    assert header["defaults"]["prefix"] == PREFIX
    assert max(len(tokenizer.encode(PREFIX + row["prompt"])) + 2 for row in rows) <= 77


def test_finding_class_names() -> None:
    classes = read("caltech101")[0]["classes"]
    assert classes_said("A windsor chair by a lamp.", classes) == ["windsor chair", "lamp"]
    assert classes_said("The head of a flamingo.", classes) == ["flamingo head"]
    assert sorted(classes_said("A closed-up face and dragonflies.", classes)) == ["dragonfly", "faces easy"]
