"""BOB's questions to a vision-language model (arXiv 2510.24078, section 3.1), and what becomes of the answers.

The class is never named in a question. An answer is made to fit the caption's template, "in the {background}
background with the {pose} pose"; one that is empty, names a class or is too long is asked for again, and the class is
not named then either.
"""

import re
from collections.abc import Sequence

from fastgen.bank.class_names import ClassNames

MOST_WORDS = 20
"""Words of an answer: two such answers and the template still fit into the 77 tokens that CLIP reads."""
_QUOTES = "\"'`*_\u201c\u201d\u2018\u2019 \t"
_ARTICLE = re.compile(r"^(?:a|an|the|some)\s+", re.IGNORECASE)


def question(attribute: str, descriptor: str, faults: Sequence[str] = ()) -> str:
    """The question about one attribute of the picture.

    Args:
        attribute: such as "background".
        descriptor: noun for whatever the data set shows, such as "aircraft".
        faults: what was wrong with earlier answers; each adds one sentence.
    """
    text = (
        f"describe the {attribute} of the {descriptor} in as few words as possible. "
        f"Refer to the {descriptor} as simply 'a {descriptor}'."
    )
    hints = {
        "empty": "Answer with a few words.",
        "class": f"Do not say which kind of {descriptor} it is.",
        "long": f"Use at most {MOST_WORDS} words.",
    }
    return " ".join([text, *(hints[fault] for fault in dict.fromkeys(faults))])


def clean(answer: str, attribute: str, descriptor: str) -> str:
    """Make an answer fit the template.

    Its lines become one; quotes, the final period, a leading article and "the background of a pet is" go; a trailing
    "background" goes too, because the template says it again; the first letter is small, unless the word is written in
    capitals.
    """
    name, noun = re.escape(attribute), re.escape(descriptor)
    text = re.sub(r"\s+", " ", answer).strip(_QUOTES).rstrip(". ").strip(_QUOTES)
    start = rf"^(?:the )?{name}(?: of (?:the|an?) {noun})?(?: is| shows| features|:)\s+"
    text = re.sub(start, "", text, flags=re.IGNORECASE)
    text = _ARTICLE.sub("", text)
    text = re.sub(rf"(?:\s+(?:in|as)\s+the)?\s+{name}$", "", text, flags=re.IGNORECASE).strip(_QUOTES + ".,;")
    return text[:1].lower() + text[1:] if text[1:2].islower() or len(text) == 1 else text


def fault_of(text: str, names: ClassNames) -> str | None:
    """What is wrong with a cleaned answer: "empty", "class" (it names one), "long", or None."""
    if not any(letter.isalnum() for letter in text):
        return "empty"
    if names.named_in(text):
        return "class"
    return "long" if len(text.split()) > MOST_WORDS else None


def cut(text: str) -> str:
    """The first words of an answer that stays too long."""
    return " ".join(text.split()[:MOST_WORDS]).rstrip(".,;")
