"""The base bank: class names put into sentence templates."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastgen.bank.write import write_bank
from fastgen.errors import BankError
from fastgen.records import DEFAULT_SCORE_TEMPLATE, Header

PLACE = "{class}"


def write_template_bank(
    classes: Sequence[str],
    out: str | Path,
    *,
    template: str | Sequence[str] = "a photo of a {class}",
    per_class: int = 1,
    underscores: bool = False,
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
        underscores: write the class name with `_` for spaces in the prompt, as DALDA's own code does.
        name: of the bank; the file name without its ending when None.
        score_template: the header's text for the CLIP score.
        defaults: the header's defaults (`refs`, `policy`, `steps`, ...).
        provenance: added to what the header records about the templates.

    Returns:
        The path.

    Raises:
        BankError: a template or an argument is unusable; nothing has been written.
        OutputError: the path cannot be written.
    """
    templates = [template] if isinstance(template, str) else list(template)
    _check(out, templates, per_class)
    made = {"kind": "template", "templates": templates, "per_class": per_class, "underscores": underscores}
    header = Header(
        name=name if name is not None else Path(out).stem,
        classes=tuple(classes),
        score_template=score_template,
        defaults=dict(defaults or {}),
        provenance={**made, **(provenance or {})},
    )
    return write_bank(out, header, _rows(header.classes, templates, per_class, underscores))


def _rows(
    classes: Sequence[str], templates: Sequence[str], per_class: int, underscores: bool
) -> Iterator[dict[str, Any]]:
    for label, class_ in enumerate(classes):
        spelt = str(class_).replace(" ", "_") if underscores else str(class_)
        for i in range(len(templates) * per_class):
            prompt = templates[i // per_class].replace(PLACE, spelt)
            yield {
                "id": f"{label:05d}-{i:03d}",
                "class": class_,
                "label": label,
                "prompt": prompt,
                "method": "template",
            }


def _check(out: str | Path, templates: Sequence[str], per_class: int) -> None:
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
    if type(per_class) is not int or per_class < 1:
        problems.append(f"{out}: per_class: got {per_class!r}, allowed: a whole number from 1")
    if problems:
        raise BankError(problems)
