"""From the text of an answer to sentences that can stand in a bank, and to what is wrong with the others."""

import json
import re
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

from fastgen.bank.class_names import ClassNames
from fastgen.bank.tokens import TokenLimit
from fastgen.fields import Problems, show, text

_DECODER = json.JSONDecoder(strict=False)  # models put line breaks into strings
_BLANKS = re.compile(r"\s*")
_BRACES = 100
"""Opening braces at which an object is looked for; an answer with more before its object is nonsense."""
_CHECK = text(one_line=True)


class Reading(NamedTuple):
    """An answer taken apart.

    Attributes:
        values: by class: what the answer has for it, of any JSON type.
        ignored: keys that are no class asked for.
    """

    values: dict[str, Any]
    ignored: list[str]


def read_answer(answer: str, asked: Sequence[str], names: ClassNames) -> Reading:
    """Find the sentences of an answer by their keys; where they stand in it means nothing.

    A code fence, words around the JSON, other case or spacing of the keys and an end that is cut off do no harm:
    whatever is complete is taken. A class that occurs twice keeps its first value.

    Args:
        answer: text of the model, thoughts between <think> marks included.
        asked: the classes asked for.
        names: all classes.
    """
    values: dict[str, Any] = {}
    ignored = []
    for key, value in _pairs(answer):
        class_ = key if key in asked else names.class_of(key)
        if class_ not in asked:
            ignored.append(key)
        elif class_ is not None:
            values.setdefault(class_, value)
    return Reading(values, ignored)


class Judge:
    """Decides which sentences a bank takes; remembers those that it took.

    A sentence is one line of text, names its class and no other, is new, and is read to its end by the text encoder.
    """

    def __init__(self, names: ClassNames, prefix: str, tokens: TokenLimit) -> None:
        """Begin with no sentence taken.

        Args:
            names: the classes.
            prefix: text that stands before every prompt.
            tokens: tokenizer and limit of the text encoder.
        """
        self._names, self._prefix, self._tokens = names, prefix, tokens
        self._taken: set[str] = set()

    def take(self, class_: str, value: Any) -> tuple[str | None, str]:
        """Return (sentence, "") for a good value, else (None, what is wrong with it)."""
        sentence = " ".join(value.split()) if isinstance(value, str) else value
        fault = self._fault(class_, sentence)
        if fault is not None:
            return None, fault
        self._taken.add(_bare(sentence))
        return sentence, ""

    def _fault(self, class_: str, sentence: Any) -> str | None:
        if _CHECK(Problems(), class_, sentence) is None:
            return f"{show(sentence, width=40)} is not one sentence of plain text"
        if (fault := self._names.fault(class_, sentence)) is not None:
            return fault
        if _bare(sentence) in self._taken:
            return "it repeats an earlier sentence; write a different one"
        count = self._tokens.count(self._prefix + sentence)
        if count > self._tokens.limit:
            return f"it is too long: {count} tokens, at most {self._tokens.limit} are read; use fewer words"
        return None


def _bare(sentence: str) -> str:
    """Return the letters and digits of a sentence, by which it is compared with others."""
    return re.sub(r"[\W_]+", " ", sentence.casefold()).strip()


def _pairs(answer: str) -> list[tuple[str, Any]]:
    """Return the pairs of the first JSON object that has any; of one within one, the inner pairs."""
    answer = answer.rpartition("</think>")[2]
    for brace in islice(re.finditer(r"\{", answer), _BRACES):
        pairs = _pairs_from(answer, brace.end())
        if len(pairs) == 1 and isinstance(pairs[0][1], dict):
            return list(pairs[0][1].items())
        if pairs:
            return pairs
    return []


def _pairs_from(answer: str, at: int) -> list[tuple[str, Any]]:
    """Return the complete `"key": value` pairs that follow a brace, up to the first thing that is not JSON."""
    pairs: list[tuple[str, Any]] = []
    try:
        while True:
            key, at = _DECODER.raw_decode(answer, _skip(answer, at))
            if not isinstance(key, str) or answer[(at := _skip(answer, at)) : at + 1] != ":":
                return pairs
            value, at = _DECODER.raw_decode(answer, _skip(answer, at + 1))
            pairs.append((key, value))
            if answer[(at := _skip(answer, at)) : at + 1] != ",":
                return pairs
            at += 1
    except (ValueError, RecursionError):
        return pairs


def _skip(answer: str, at: int) -> int:
    """Return the place of the next character that is no blank."""
    found = _BLANKS.match(answer, at)
    return found.end() if found else at
