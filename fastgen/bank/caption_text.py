"""The sentences of DataDream and BOB: the text a LoRA is trained with, and the prompts that must match it."""

import re
from collections.abc import Mapping

from fastgen.errors import BankError

PLAIN_TEMPLATE = "a {descriptor} photo of a {class}"
"""DataDream's (arXiv 2407.10910); without a descriptor its blank goes too."""
BOB_TEMPLATE = "a {descriptor} photo of a {class} in the {background} background with the {pose} pose."
"""BOB's (arXiv 2510.24078, section 3.1)."""
ARTICLES = ("literal", "fix")
_FILLED = ("descriptor", "class")
_PLACE = re.compile(r"\{(\w+)\}")


def attribute_names(template: str) -> tuple[str, ...]:
    """The attributes of an image that a template names, in the order of their first appearance.

    Raises:
        BankError: it lacks {class}, or has braces that are no name.
    """
    names = tuple(dict.fromkeys(_PLACE.findall(template)))
    rest = _PLACE.sub("", template)
    if "class" not in names or "{" in rest or "}" in rest:
        raise BankError([f"template: got {template!r}, allowed: text with {{class}} and names in braces"])
    return tuple(name for name in names if name not in _FILLED)


def caption_text(
    template: str,
    class_: str,
    attributes: Mapping[str, str] | None = None,
    *,
    descriptor: str = "",
    article: str = "literal",
) -> str:
    """Fill a template.

    Args:
        template: text with {class} and, if wanted, {descriptor} and names of attributes.
        class_: name of the class.
        attributes: by name; nothing in them is formatted.
        descriptor: noun for the whole data set, such as "pet"; may be empty.
        article: "literal" leaves "a" before a vowel, as in the papers, whose LoRAs have learned it; "fix" writes "an".
            Training captions and prompts must agree in it.

    Returns:
        The text, without double blanks.
    """
    values = {"class": class_, "descriptor": descriptor, **(attributes or {})}
    text = _PLACE.sub(lambda match: values[match[1]], template)
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"\b([Aa]) (?=[aeiouAEIOU])", r"\1n ", text) if article == "fix" else text
