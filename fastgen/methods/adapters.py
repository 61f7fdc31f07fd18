"""What rows say about the adapters that an engine must have for them."""

import math
import re
from collections.abc import Sequence

from fastgen.class_words import word_of, words_of
from fastgen.errors import BankError
from fastgen.row_parts import Adapter

_ALLOWED = "NAME or NAME@SCALE, a scale from -10 to 10"


def lora_adapters(lora: str | None, targets: tuple[str, ...], *, class_: str = "", label: int = 0) -> list[Adapter]:
    """The entries of one LoRA.

    Args:
        lora: NAME or NAME@SCALE, as in `fastgen build --lora NAME=PATH@SCALE`; `{class}` and `{label}` in it become
            those of the row, for one LoRA per class. None: no LoRA.
        targets: "unet", "text" or both.
        class_: of the row.
        label: of the row.

    Raises:
        BankError: it cannot be read.
    """
    if lora is None:
        return []
    name, at, scale = filled(lora, class_, label).rpartition("@")
    name, scale = (name, scale) if at else (scale, "1")
    try:
        number = float(scale)
    except ValueError:
        number = math.nan
    if not name.strip() or not -10 <= number <= 10:
        raise BankError([f"lora: got {lora!r}, allowed: {_ALLOWED}"])
    return [Adapter(name=name, target=target, scale=number) for target in targets]  # type: ignore[arg-type]


def token_adapters(token: str, class_: str, label: int) -> list[Adapter]:
    """The entry of the class's learned word; none where the word is the class name itself, `{class}`."""
    return [] if token == "{class}" else [Adapter(name=filled(token, class_, label), target="ti")]


def check_token(token: str, classes: Sequence[str]) -> None:
    """Raise FastgenError where two classes would have the same word, or a class none."""
    if "{word}" in token:
        words_of(classes)


def filled(text: str, class_: str, label: int) -> str:
    """Put {class}, the class's {word} and its {label} into a text; `{label:03d}` pads with zeros."""

    def value(match: re.Match[str]) -> str:
        if match[1] == "label":
            return format(label, match[2] or "")
        return class_ if match[1] == "class" else word_of(class_)

    return re.sub(r"\{(class|word|label)(?::(0?\d+d))?\}", value, text)
