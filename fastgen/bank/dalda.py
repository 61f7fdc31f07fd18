"""What DALDA's banks have in common: the header's defaults, and one prompt row for each sentence."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastgen.bank.defaults import PAPER, merge_defaults, with_profile
from fastgen.records import Header, Row

PREFIX = "best quality, high quality, "
NEGATIVE_PROMPT = "monochrome, lowres, bad anatomy, worst quality, low quality"
DALDA = {"shots": 1, "policy": "ags", "prefix": PREFIX, "negative_prompt": NEGATIVE_PROMPT, "scheduler": "ddim"}
"""Header defaults of DALDA's banks. Steps and guidance scale are left to the model: 30 and 7.5, as in DALDA, unless it
has its own."""


def dalda_header(
    name: str,
    classes: Sequence[str],
    *,
    refs: str | None = None,
    profile: str = PAPER,
    defaults: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Header:
    """Return the header of a DALDA bank: adaptive guidance, one shot, its prefix, negative prompt and scheduler.

    Args:
        name: of the bank.
        classes: ordered class names; their order defines the label ids.
        refs: folder of references relative to the bank, or "petworld"; None leaves it to `--refs`.
        profile: "dalda-paper" or "dalda-official".
        defaults: header defaults that come before all of these, such as {"policy": "uniform"}.
        provenance: where the sentences come from.

    Raises:
        FastgenError: there is no such profile.
        FieldErrors: a name, `refs` or a default is not usable.
    """
    own = {**({"refs": refs} if refs is not None else {}), **DALDA, "method": "dalda"}
    made = {"profile": profile, **(provenance or {})}
    header = with_profile(Header(name=name, classes=tuple(classes), defaults=own, provenance=made), profile)
    return Header.from_json({**header.to_json(), "defaults": merge_defaults(header.defaults, defaults)})


def dalda_rows(header: Header, sentences: Mapping[str, Sequence[str]]) -> list[Row]:
    """Return one prompt row for each sentence, class by class in the header's order."""
    return [
        Row(id=f"{label:05d}-{i:03d}", class_=class_, label=label, prompt=sentence)
        for label, class_ in enumerate(header.classes)
        for i, sentence in enumerate(sentences[class_])
    ]
