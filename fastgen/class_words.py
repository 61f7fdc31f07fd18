"""The word of textual inversion that stands for a class: banks write it, fine-tuning learns it, an engine has it."""

import re
from collections.abc import Sequence

from fastgen.errors import FastgenError


def slug(name: str) -> str:
    """Class name as a file is called: small letters and digits, underscores for everything else."""
    return re.sub(r"[^\w.]+|_+", "_", name.casefold()).strip("_.")


def word_of(name: str) -> str:
    """The word that stands for a class, `<german_shorthaired>`; small letters, because CLIP knows no others."""
    return f"<{slug(name)}>"


def words_of(classes: Sequence[str]) -> dict[str, str]:
    """Class -> its word.

    Raises:
        FastgenError: two classes would share a word, or a name has no letter or digit.
    """
    words = {name: word_of(name) for name in classes}
    for name, word in words.items():
        twins = [other for other in classes if words[other] == word]
        if word == "<>" or len(twins) > 1:
            raise FastgenError(f"class {name!r} would be {word}, {' and '.join(map(repr, twins))} alike; rename it")
    return words
