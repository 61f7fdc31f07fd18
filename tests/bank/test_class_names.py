"""Finding class names in sentences: whole words, the longest name first, in any case, spacing and number."""

import pytest

from fastgen.bank.class_names import ClassNames
from fastgen.errors import BankError
from fastgen.petworld.attributes import OXFORD_PETS

NAMES = ClassNames(
    ["Pug", "Bull Terrier", "Staffordshire Bull Terrier", "airplanes", "faces", "faces easy", "cactus"]
    + ["C++", "St. Bernard"]
)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a Staffordshire Bull Terrier", ["Staffordshire Bull Terrier"]),
        ("two pugs on a rug, one PUG's toy", ["Pug"]),
        ("a bull-terrier and a bull\nterrier", ["Bull Terrier"]),
        ("a Staffordshire Bull Terrier with a Bull Terrier", ["Staffordshire Bull Terrier", "Bull Terrier"]),
        ("a pugnacious terrier", []),
        ("an airplane above the clouds", ["airplanes"]),
        ("one face", ["faces"]),
        ("faces easy to see", ["faces easy"]),
        ("cacti or a cactu", []),
        ("two cactuses", ["cactus"]),
        ("written in C++.", ["C++"]),
        ("a st. bernard", ["St. Bernard"]),
        ("a stx bernard", []),
        ("", []),
    ],
)
def test_classes_named(text, expected):
    assert NAMES.named_in(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("an American Bulldog and a bulldog", ["American Bulldog"]),
        ("two pugs on a persian rug", ["Pug", "Persian"]),
        ("a bombayish boxed wheat terrier", []),
    ],
)
def test_the_examples_of_the_shipped_bank(text, expected):
    assert ClassNames(OXFORD_PETS).named_in(text) == expected


@pytest.mark.parametrize(
    "class_, text, fault",
    [
        ("Pug", "A pug.", None),
        ("Pug", "A dog.", "it does not contain the class name 'Pug'"),
        ("Pug", "A pug beside a bull terrier.", "it names another class: Bull Terrier"),
        ("Bull Terrier", "A Staffordshire bull terrier.", "it names another class: Staffordshire Bull Terrier"),
    ],
)
def test_faults(class_, text, fault):
    assert NAMES.fault(class_, text) == fault


@pytest.mark.parametrize("key", ["Pug", "pug", " PUG ", "staffordshire_bull-terrier", "staffordshire  bull terrier"])
def test_keys_in_another_spelling(key):
    assert NAMES.class_of(key) in ("Pug", "Staffordshire Bull Terrier")


def test_keys_that_are_no_class():
    assert NAMES.class_of("Pugs") is None
    assert NAMES.class_of("a Pug") is None


def test_names_beyond_ascii():
    names = ClassNames(["jack-o'-lantern", "Löwe", "straße", "熊猫"])
    assert names.named_in("a jack-o\N{RIGHT SINGLE QUOTATION MARK}-lantern") == ["jack-o'-lantern"]
    assert names.named_in("ein Lo\N{COMBINING DIAERESIS}we") == ["Löwe"]
    assert names.named_in("STRASSE") == ["straße"]
    assert names.named_in("熊猫") == ["熊猫"]


def test_names_that_no_sentence_could_tell_apart():
    with pytest.raises(BankError, match="got 'T-Shirt' and 't shirt', allowed: names that differ in more than"):
        ClassNames(["T-Shirt", "t shirt"])
