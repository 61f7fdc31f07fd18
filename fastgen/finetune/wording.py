"""What a training picture is called: templates, their placeholders, and the words of textual inversion."""

import re
import string
from collections.abc import Mapping

from fastgen.errors import FastgenError

DATADREAM = "a {descriptor} photo of a {class}"
BOB = "a {descriptor} photo of a {class} in the {background} background with the {pose} pose."
DIFF_MIX = "a photo of a {class} {descriptor}"
REAL_FAKE = "photo of {class}, {caption}"

PHOTOS = (
    "a photo of a {class}",
    "a photo of the {class}",
    "a photo of one {class}",
    "a photo of my {class}",
    "one photo of a {class}",
    "the photo of a {class}",
    "a picture of a {class}",
    "an image of a {class}",
    "a good photo of a {class}",
    "a good photo of the {class}",
    "a bad photo of a {class}",
    "a bright photo of a {class}",
    "a bright photo of the {class}",
    "a dark photo of a {class}",
    "a dark photo of the {class}",
    "a sharp photo of a {class}",
    "a blurred photo of a {class}",
    "a small photo of a {class}",
    "a cropped photo of a {class}",
    "a cropped photo of the {class}",
    "a close photo of a {class}",
    "a close photo of the {class}",
    "a photo of a clean {class}",
    "a photo of a dirty {class}",
    "a photo of a nice {class}",
    "a photo of a small {class}",
    "a photo of a large {class}",
)
"""27 plain photo captions for textual inversion, one drawn for every picture of every step."""

ARTICLES = ("literal", "fix")
_A_BEFORE_VOWEL = re.compile(r"\b([Aa]) (?=[aeiouAEIOU])")


def fill(template: str, values: Mapping[str, str], *, article: str = "literal") -> str:
    """Fill a template; what an empty value leaves behind is closed up.

    Args:
        template: text with placeholders such as {class}.
        values: placeholder -> text.
        article: "literal" keeps "a aircraft", as BOB and DataDream train and generate; "fix" makes it "an aircraft".
    """
    text = " ".join(template.format_map(values).split())
    return _A_BEFORE_VOWEL.sub(r"\1n ", text) if article == "fix" else text


def placeholders(template: str) -> tuple[str, ...]:
    """Names in the braces of a template, in order.

    Raises:
        FastgenError: it is no template, or {class} is not in it.
    """
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise FastgenError(f"template {template!r}: {error}; write placeholders as {{class}}") from None
    names = tuple(name for _, name, form, conversion in pieces if name is not None and not form and not conversion)
    if "class" not in names or not all(name.isidentifier() for name in names):
        raise FastgenError(f"template {template!r}: needed is {{class}}; beside it {{descriptor}}, {{background}}, ...")
    return names
