"""What one line of a bank means: `Header` for line 1, `Row` for every other line.

A *prompt row* still has to be planned (it lacks a seed, a reference or a lambda); an *image row* is resolved
and exactly one image. Both are a `Row`. Sizes are in pixels; all else is a plain number.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from fastgen.fields import (
    Checker,
    Problems,
    json_object,
    show,
    text,
    unknown_fields,
)
from fastgen.header_parts import HEADER_ONLY
from fastgen.row_parts import (
    AGS_CHOICES,
    NAME,
    ROW_CHECKERS,
    ROW_FIELDS,
    SHAREABLE,
    Adapter,
    Attrs,
    Init,
    LambdaPolicy,
    Ref,
)

BANK_VERSION = 1
DEFAULT_SCORE_TEMPLATE = "a photo of a {class}"
_PYTHON_NAME = {"class": "class_", "lambda": "lambda_"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Line 1 of a bank.

    Attributes:
        name: of the bank.
        classes: ordered class names; the position is the label id and the column of the CLIP softmax.
        score_template: text the CLIP score compares an image with; `{class}` stands for the name.
        defaults: values for rows that lack them, as JSON, plus those of `fastgen.header_parts` (`refs`, ...).
        provenance: where the bank comes from, as JSON; never read by fastgen.
    """

    name: str
    classes: tuple[str, ...]
    score_template: str = DEFAULT_SCORE_TEMPLATE
    defaults: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    _label_of: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the classes by name."""
        object.__setattr__(self, "_label_of", {name: label for label, name in enumerate(self.classes)})

    def label_of(self, class_: str) -> int | None:
        """Return the label id of a class name, or None when the bank has no such class."""
        return self._label_of.get(class_)

    def row_defaults(self) -> dict[str, Any]:
        """Return the defaults that are row fields, checked and in Python form, for `Row.with_defaults`."""
        problems = Problems()
        found = {
            _PYTHON_NAME.get(name, name): SHAREABLE[name](problems, name, value)
            for name, value in self.defaults.items()
            if name in SHAREABLE and value is not None
        }
        problems.raise_if_any()
        return found

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> "Header":
        """Check a parsed first line.

        Raises:
            FieldErrors: fields are missing, unknown or bad, or the format version is not ours.
        """
        problems = Problems()
        version = obj.get("fastgen_bank")
        if "fastgen_bank" not in obj:
            problems.add_text(
                "fastgen_bank", "nothing", f"{BANK_VERSION}: line 1 must be the header {_HEADER_EXAMPLE}"
            )
            problems.raise_if_any()
        if type(version) is not int or version != BANK_VERSION:
            problems.add(
                "fastgen_bank", version, f"{BANK_VERSION}, the only format version this fastgen reads"
            )
            problems.raise_if_any()
        unknown_fields(problems, obj, _HEADER_FIELDS)
        for name in ("name", "classes"):
            if obj.get(name) is None:
                problems.add_text(name, "nothing", f"the header needs it: {_HEADER_EXAMPLE}")
        values = {
            n: check(problems, n, obj[n]) for n, check in _HEADER_FIELDS.items() if obj.get(n) is not None
        }
        problems.raise_if_any()
        del values["fastgen_bank"]
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Return the object of line 1; `from_json` turns it back into an equal header."""
        return {
            "fastgen_bank": BANK_VERSION,
            "name": self.name,
            "classes": list(self.classes),
            "score_template": self.score_template,
            "defaults": self.defaults,
            "provenance": self.provenance,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a bank after line 1; a field that is None (or empty) was not given.

    Attributes:
        class_, label: class name and its index in the header; `from_json` fills `label` in.
        seed: of the image's start noise, 0 .. 2**64 - 1.
        mode: "t2i", "img2img" (needs `strength`) or "latent" (needs `init`); None means t2i.
        lambda_: image-prompt weight in [0, 2], a policy that draws it, or None.
        lambda_null: the bank says `"lambda": null`: no image branch, whatever defaults and policy say.
        shot: number of the references of its class that a prompt row meets, 0 .. the header's shots - 1; None: all.
        score: CLIP score of the reference: a probability, a cosine, or up to 2.5.
        strength: share of the schedule that img2img runs, in (0, 1].
        guidance_scale: weight of classifier-free guidance, 0..100. steps: 1..1000.
        guidance_interval: shares of the schedule between which there is guidance, 0 <= lo < hi <= 1; None: all of it.
        width, height: multiples of 8 in 8..4096.
        labels: soft labels as (label, weight), weights sum to 1 or to less.
        switch: share of the schedule that uses `prompt` before `prompt_late` takes over, 0..1.
        lambda_mu, lambda_sigma, lambda_bin, lambda_sampler: how a plan drew `lambda_`.
    """

    class_: str
    prompt: str
    id: str | None = None
    label: int | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    mode: str | None = None
    ref: Ref | None = None
    shot: int | None = None
    lambda_: float | LambdaPolicy | None = None
    lambda_null: bool = False
    score: float | None = None
    strength: float | None = None
    adapters: tuple[Adapter, ...] = ()
    guidance_scale: float | None = None
    guidance_interval: tuple[float, float] | None = None
    steps: int | None = None
    scheduler: str | None = None
    width: int | None = None
    height: int | None = None
    labels: tuple[tuple[int, float], ...] = ()
    init: Init | None = None
    prompt_late: str | None = None
    switch: float | None = None
    domain: str | None = None
    attrs: Attrs | None = None
    round: int | None = None
    parent: str | None = None
    method: str | None = None
    tags: dict[str, Any] = field(default_factory=dict)
    lambda_mu: float | None = None
    lambda_sigma: float | None = None
    lambda_bin: str | None = None
    lambda_sampler: str | None = None

    @property
    def is_image_row(self) -> bool:
        """Whether nothing is left to plan: it has a seed, and lambda with a reference or no image branch."""
        if self.seed is None or isinstance(self.lambda_, LambdaPolicy):
            return False
        if self.lambda_null:
            return True
        if self.ref is None:
            return False
        return self.lambda_ is not None or "ip" not in self.ref.role

    @classmethod
    def from_json(cls, obj: Mapping[str, Any], header: Header | None) -> "Row":
        """Check one parsed line.

        Args:
            obj: the JSON object; null means "not given", except for `lambda`.
            header: of the same bank; None skips what needs the class list and the defaults.

        Raises:
            FieldErrors: with every field that is unknown, missing, of a bad type or out of range.
        """
        problems = Problems()
        unknown_fields(problems, obj, ROW_CHECKERS)
        values: dict[str, Any] = {"lambda_null": "lambda" in obj and obj["lambda"] is None}
        for name, value in obj.items():
            if value is not None and name in ROW_CHECKERS:
                values[_PYTHON_NAME.get(name, name)] = ROW_CHECKERS[name](problems, name, value)
        for name in ("class", "prompt"):
            if obj.get(name) is None:
                problems.add_text(name, "nothing", "every row needs its class and its prompt")
        if header is not None:
            _check_labels_known(problems, values, header)
            _check_together(problems, values, header.defaults)
        problems.raise_if_any()
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Return the row as a JSON object, in the order of `ROW_FIELDS` and without None or empty fields."""
        found = {name: _plain(getattr(self, _PYTHON_NAME.get(name, name))) for name in ROW_FIELDS}
        return {
            n: v for n, v in found.items() if v not in (None, [], {}) or (n == "lambda" and self.lambda_null)
        }

    def with_defaults(self, defaults: Mapping[str, Any]) -> "Row":
        """Return the row with missing fields taken from `Header.row_defaults()`; what the row says wins."""
        missing = {name: value for name, value in defaults.items() if getattr(self, name) in (None, (), {})}
        if self.lambda_null:
            missing.pop("lambda_", None)
        return replace(self, **missing) if missing else self


def _plain(value: Any) -> Any:
    """Return the JSON form of a field: objects without their empty parts, lists for tuples."""
    if isinstance(value, LambdaPolicy):
        used = ("policy", "n", *AGS_CHOICES) if value.policy == "ags" else ("policy", "lo", "hi")
        return {name: part for name in used if (part := getattr(value, name)) is not None}
    if is_dataclass(value):
        found = {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
        return {name: part for name, part in found.items() if part is not None}
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def _check_labels_known(problems: Problems, values: dict[str, Any], header: Header) -> None:
    """Compare class names and label ids with the header, and fill in `label`."""
    count = len(header.classes)
    name = values.get("class_")
    if name is not None:
        index = header.label_of(name)
        if index is None:
            close = difflib.get_close_matches(name, header.classes[:10_000], n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            names = ", ".join(header.classes[:10]) + (f", ... ({count} in all)" if count > 10 else "")
            problems.add("class", name, f"{hint}a class of the header: {names}")
        elif values.setdefault("label", index) not in (index, None):
            problems.add(
                "label",
                values["label"],
                f"{index}, the header's index of class {show(name)}; or leave it out",
            )
    given = [(f"labels[{i}][0]", label) for i, (label, _) in enumerate(values.get("labels") or ())]
    ref, attrs = values.get("ref"), values.get("attrs")
    given += [("ref.label", ref.label)] if ref is not None else []
    given += [("attrs.donor_label", attrs.donor_label)] if attrs is not None else []
    for where, label in given:
        if label is not None and label >= count:
            problems.add(
                where, label, f"a whole number from 0 to {count - 1}: the header has {count} classes"
            )


def _check_together(problems: Problems, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Check fields that need one another, in the row or in the header's defaults."""
    mode = values.get("mode") or defaults.get("mode") or "t2i"
    if mode == "img2img" and "strength" not in values and defaults.get("strength") is None:
        problems.add_text("strength", "nothing", "a number above 0 up to 1, which mode img2img needs")
    if (mode == "latent") != ("init" in values):
        got = "nothing" if mode == "latent" else "an init"
        problems.add_text("init", got, f"an init exactly when mode is latent (it is {mode} here)")
    shot, shots = values.get("shot"), defaults.get("shots")
    if shot is not None and (shots is None or shot >= shots or "ref" in values):
        below = f"a number below the header's defaults.shots ({shots or 'which is not given'})"
        problems.add("shot", shot, f"{below}, in a row without ref")
    if values.get("prompt_late") and "switch" not in values and defaults.get("switch") is None:
        problems.add_text("switch", "nothing", "a number from 0 to 1, which prompt_late needs")


def _check_version(problems: Problems, name: str, value: Any) -> Any:
    return value  # compared in Header.from_json, before anything else


def _check_classes(problems: Problems, name: str, value: Any) -> tuple[str, ...] | None:
    if not isinstance(value, list) or not value:
        problems.add(name, value, "a list of at least one class name")
        return None
    before = len(problems.found)
    found = tuple(NAME(problems, f"{name}[{i}]", class_) for i, class_ in enumerate(value))
    if len(problems.found) > before:
        return None
    first: dict[str, int] = {}
    for i, class_ in enumerate(found):
        if first.setdefault(class_, i) != i:
            problems.add(f"{name}[{i}]", class_, f"each class once; {name}[{first[class_]}] is the same")
    return found


def _check_template(problems: Problems, name: str, value: Any) -> str | None:
    if text(one_line=True)(problems, name, value) is None:
        return None
    if "{class}" not in value:
        problems.add(name, value, "text with {class} where the class name goes")
        return None
    return value


def _check_defaults(problems: Problems, name: str, value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        problems.add(name, value, "an object of field: value")
        return None
    checkers = {**HEADER_ONLY, **SHAREABLE}
    unknown_fields(problems, value, checkers, prefix=f"{name}.")
    for key, default in value.items():
        if key in checkers and default is not None:
            checkers[key](problems, f"{name}.{key}", default)
    if value.get("policy") is not None and value.get("lambda") is not None:
        problems.add(f"{name}.policy", value["policy"], "policy or lambda, not both: they say the same thing")
    return value


_HEADER_FIELDS: dict[str, Checker] = {
    "fastgen_bank": _check_version,
    "name": NAME,
    "classes": _check_classes,
    "score_template": _check_template,
    "defaults": _check_defaults,
    "provenance": json_object,
}
_HEADER_EXAMPLE = '{"fastgen_bank": 1, "name": "pets", "classes": ["tabby cat", ...]}'
