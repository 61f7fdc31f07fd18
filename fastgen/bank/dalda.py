"""What DALDA's banks have in common: the header's defaults, and one prompt row for each sentence."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastgen.records import Header, Row

PREFIX = "best quality, high quality, "
NEGATIVE_PROMPT = "monochrome, lowres, bad anatomy, worst quality, low quality"


def dalda_header(
    name: str, classes: Sequence[str], *, refs: str | None = None, provenance: Mapping[str, Any] | None = None
) -> Header:
    """Return the header of a DALDA bank: adaptive guidance, one shot, its prefix and negative prompt.

    Args:
        name: of the bank.
        classes: ordered class names; their order defines the label ids.
        refs: folder of references relative to the bank, or "petworld"; None leaves it to `--refs`.
        provenance: where the sentences come from.

    Raises:
        FieldErrors: a name or `refs` is not usable.
    """
    defaults: dict[str, Any] = {"refs": refs} if refs is not None else {}
    defaults |= {"shots": 1, "policy": "ags", "prefix": PREFIX, "negative_prompt": NEGATIVE_PROMPT, "method": "dalda"}
    header = Header(name=name, classes=tuple(classes), defaults=defaults, provenance=dict(provenance or {}))
    return Header.from_json(header.to_json())


def dalda_rows(header: Header, sentences: Mapping[str, Sequence[str]]) -> list[Row]:
    """Return one prompt row for each sentence, class by class in the header's order."""
    return [
        Row(id=f"{label:05d}-{i:03d}", class_=class_, label=label, prompt=sentence)
        for label, class_ in enumerate(header.classes)
        for i, sentence in enumerate(sentences[class_])
    ]
