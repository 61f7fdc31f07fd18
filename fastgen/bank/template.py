"""The base bank: class names put into sentence templates."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastgen.bank.dalda import DALDA
from fastgen.bank.defaults import OFFICIAL, PROFILES, check_profile, merge_defaults
from fastgen.bank.write import write_bank
from fastgen.errors import BankError
from fastgen.records import DEFAULT_SCORE_TEMPLATE, Header

PLACE = "{class}"
CLASS_FORMATS = ("plain", "underscore")


def write_template_bank(
    classes: Sequence[str],
    out: str | Path,
    *,
    template: str | Sequence[str] = "a photo of a {class}",
    per_class: int = 1,
    class_format: str | None = None,
    profile: str | None = None,
    name: str | None = None,
    score_template: str = DEFAULT_SCORE_TEMPLATE,
    defaults: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write a bank of prompt rows: `per_class` for each class and template.

    Args:
        classes: ordered class names, spelt with spaces; their order defines the label ids.
        out: path of the bank.
        template: one or more sentences; every `{class}` becomes the class name, nothing else is formatted.
        per_class: rows for each class and template: so many images of it for every reference.
        class_format: how prompts write the name: "plain" or, with `_` for spaces, "underscore"; None takes the
            profile's.
        profile: makes it DALDA's base bank: "dalda-paper", or "dalda-official", which writes underscores.
        name: of the bank; the file name without its ending when None.
        score_template: the header's text for the CLIP score.
        defaults: the header's defaults (`refs`, `policy`, `steps`, ...); they come before the profile's.
        provenance: added to what the header records about the templates.

    Returns:
        The path.

    Raises:
        BankError: a template or an argument is unusable; nothing has been written.
        OutputError: the path cannot be written.
    """
    templates = [template] if isinstance(template, str) else list(template)
    class_format = class_format or ("underscore" if profile == OFFICIAL else "plain")
    _check(out, templates, per_class, class_format)
    made = {"kind": "template", "templates": templates, "per_class": per_class, "class_format": class_format}
    own: Mapping[str, Any] = {}
    if profile is not None:
        check_profile(profile)
        own, made = {**DALDA, **PROFILES[profile]}, {**made, "profile": profile}
    header = Header(
        name=name if name is not None else Path(out).stem,
        classes=tuple(classes),
        score_template=score_template,
        defaults=merge_defaults(own, defaults),
        provenance={**made, **(provenance or {})},
    )
    return write_bank(out, header, _rows(header, templates, per_class, class_format))


def _rows(header: Header, templates: Sequence[str], per_class: int, class_format: str) -> Iterator[dict[str, Any]]:
    method = "dalda-base" if "profile" in header.provenance else "template"
    for label, class_ in enumerate(header.classes):
        spelt = str(class_).replace(" ", "_") if class_format == "underscore" else str(class_)
        for i in range(len(templates) * per_class):
            prompt = templates[i // per_class].replace(PLACE, spelt)
            yield {
                "id": f"{label:05d}-{i:03d}",
                "class": class_,
                "label": label,
                "prompt": prompt,
                "method": method,
            }


def _check(out: str | Path, templates: Sequence[str], per_class: int, class_format: str) -> None:
    """Refuse templates that would give the same text for every class, or that look mistyped."""
    problems = []
    for template in templates:
        other = sorted(set(re.findall(r"\{\w*\}", template)) - {PLACE})
        if PLACE not in template or other:
            got = f"{template!r}" + (f" with {', '.join(other)}" if other else "")
            problems.append(
                f"{out}: template: got {got}, allowed: text with {PLACE} and no other name in braces"
            )
    if not templates:
        problems.append(f"{out}: template: got none, allowed: at least one sentence with {PLACE}")
    if class_format not in CLASS_FORMATS:
        problems.append(f"{out}: class_format: got {class_format!r}, allowed: {', '.join(CLASS_FORMATS)}")
    if type(per_class) is not int or per_class < 1:
        problems.append(f"{out}: per_class: got {per_class!r}, allowed: a whole number from 1")
    if problems:
        raise BankError(problems)
