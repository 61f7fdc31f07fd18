"""Answers taken apart by key, and sentences that a bank does not take."""

import json

import pytest

from fastgen.bank.class_names import ClassNames
from fastgen.bank.sentences import Judge, read_answer
from fastgen.bank.tokens import TokenLimit

CLASSES = ["Pug", "Maine Coon", "Beagle"]
NAMES = ClassNames(CLASSES)
GOOD = {name: f"A {name}." for name in CLASSES}


def values(answer, asked=CLASSES):
    return read_answer(answer, asked, NAMES).values


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps(GOOD),
        json.dumps(dict(reversed(GOOD.items()))),
        json.dumps(GOOD, indent=4),
        f"```json\n{json.dumps(GOOD)}\n```",
        f"Here they are, as {{asked}}:\n\n{json.dumps(GOOD)}\n\nAnything else? {{}}",
        json.dumps({"sentences": GOOD}),
        json.dumps({key.upper().replace(" ", "_"): value for key, value in GOOD.items()}),
        f'<think>{{"Pug": "a draft"}} no</think>{json.dumps(GOOD)}',
        json.dumps(GOOD)[:-1],
        json.dumps(GOOD)[:-1] + ",}",
        '{"Pug": "A Pug.", "Maine Coon": "A Maine Coon.", "Beagle": "A Beagle.", "Pug": "again"}',
    ],
)
def test_every_sentence_is_found_by_its_key(answer):
    assert values(answer) == GOOD


def test_a_reordered_answer_mislabels_nothing():
    swapped = '{"Beagle": "A Beagle.", "Pug": "A Pug."}'
    assert values(swapped) == {"Beagle": "A Beagle.", "Pug": "A Pug."}
    assert values('{"1": "A Pug.", "2": "A Maine Coon.", "3": "A Beagle."}') == {}, "never by position"


@pytest.mark.parametrize("end", range(len(json.dumps(GOOD))))
def test_of_a_cut_answer_what_is_complete_is_taken(end):
    text = json.dumps(GOOD)[:end]
    assert values(text) == {name: sentence for name, sentence in GOOD.items() if json.dumps(sentence) in text}


@pytest.mark.parametrize(
    "answer",
    ["", "I cannot help.", "[1, 2]", "{", "{{{{", '{"Pug" "A Pug."}', "{3: 4}", "{" * 5000, '{"Pug": ' * 9999],
)
def test_nonsense_has_no_sentence(answer):
    assert values(answer) == {}


def test_line_breaks_inside_strings_do_no_harm():
    assert values('{"Pug": "A\nPug."}') == {"Pug": "A\nPug."}


def test_unknown_keys_and_classes_not_asked_for_are_reported():
    reading = read_answer(json.dumps({**GOOD, "Poodle": "A Poodle."}), ["Pug"], NAMES)
    assert reading.values == {"Pug": "A Pug."}
    assert reading.ignored == ["Maine Coon", "Beagle", "Poodle"]


def judge(limit=77):
    return Judge(NAMES, "best ", TokenLimit(lambda text: len(text.split()) + 2, limit))


@pytest.mark.parametrize(
    "value, fault",
    [
        ("A dog.", "it does not contain the class name 'Pug'"),
        ("A pug and a beagle.", "it names another class: Beagle"),
        (3, "3 is not one sentence of plain text"),
        (None, "null is not one sentence of plain text"),
        (["A pug."], '["A pug."] is not one sentence of plain text'),
        ({}, "{} is not one sentence of plain text"),
        ("", '"" is not one sentence of plain text'),
        ("A pug\x07.", '"A pug\\\\u0007." is not one sentence of plain text'),
        ("A \ud83d pug.", '"A \\\\ud83d pug." is not one sentence of plain text'),
        ("A pug in a very long sentence.", "it is too long: 10 tokens, at most 9 are read; use fewer words"),
    ],
)
def test_sentences_that_are_not_taken(value, fault):
    assert judge(limit=9).take("Pug", value) == (None, fault.replace("\\\\", "\\"))


def test_a_repeated_sentence_is_not_taken_twice():
    one = judge()
    assert one.take("Pug", "A pug, here.") == ("A pug, here.", "")
    assert one.take("Pug", "a PUG here!") == (None, "it repeats an earlier sentence; write a different one")


def test_a_good_sentence_is_taken_in_one_line_with_its_braces():
    assert judge().take("Pug", " A pug\n with {a} {class}\tsign. ") == ("A pug with {a} {class} sign.", "")
