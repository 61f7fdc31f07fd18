"""The fields of a row, their checkers, and the parts that are objects; import them from `fastgen.records`."""

from dataclasses import dataclass
from typing import Any, Literal

from fastgen.fields import (
    Checker,
    Problems,
    choice,
    inside_path,
    integer,
    json_object,
    number,
    object_of,
    text,
)

LAMBDA_MAX = 2.0
"""Largest image-prompt weight: 1 is the adapter as trained; beyond 2 little of the text prompt is left."""
SCORE_MAX = 2.5
"""Largest score: a probability and a cosine end at 1, a CLIPScore (2.5 times the cosine) ends here."""
LABEL = integer(0, 10_000_000)
NAME = text(longest=500, one_line=True)
SHOTS = integer(1, 1_000_000)
MODES = ("t2i", "img2img", "latent")
POLICIES = ("ags", "uniform")
AGS_CHOICES: dict[str, tuple[str, ...]] = {
    "sampler": ("truncnorm", "clipnorm"),
    "high_max": ("fixed", "grow_sqrt_n"),
    "low_if": ("le", "lt"),
    "per": ("image", "reference"),
}
"""Options of the policy "ags" and what each may be, the paper's choice first; `fastgen.plan.ags` explains them."""
REF_FITS = ("squash", "center_crop")
_LAMBDA_OBJECTS = '{"policy": "ags", "n": 1}, {"policy": "uniform", "lo": 0, "hi": 1}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref:
    """One reference image of a row.

    Attributes:
        id: its name in the references; the path when the bank gives only that.
        path: file relative to the bank's or the --refs folder, or None when `id` alone finds it.
        label: its own class index when that is not the row's.
        role: "ip" feeds the image prompt, "init" is the start image of img2img.
        fit: how it becomes square: "squash" (what None means) or "center_crop".
        size: its own width and height in pixels, if known.
    """

    id: str
    path: str | None = None
    label: int | None = None
    role: tuple[str, ...] = ("ip",)
    fit: str | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LambdaPolicy:
    """A rule that draws lambda: "ags" for `n` shots (>= 1), or "uniform" in [lo, hi] within [0, 2].

    `n` and the options of AGS (`AGS_CHOICES`) that are None are the bank's.
    """

    policy: Literal["ags", "uniform"]
    n: int | None = None
    lo: float = 0.0
    hi: float = 1.0
    sampler: str | None = None
    high_max: str | None = None
    low_if: str | None = None
    per: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """An adapter the row wants: `target` "unet" or "text" (LoRA) or "ti" (token); `scale` in [-10, 10]."""

    name: str
    target: Literal["unet", "text", "ti"]
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attrs:
    """What a caption was made of; `donor_id` and `donor_label` name the real image it was taken from."""

    background: str | None = None
    pose: str | None = None
    donor_id: str | None = None
    donor_label: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Init:
    """Start latent of mode "latent": a point on the circle through two inverted references.

    Attributes:
        kind: always "circle".
        refs: ids of the two references; the same one twice stands for its inversion.
        alpha: position on the circle, or None to draw it.
        inv_steps: DDIM inversion steps, 1..1000.
    """

    kind: Literal["circle"]
    refs: tuple[str, str]
    alpha: float | None = None
    inv_steps: int = 200


def check_ref(problems: Problems, name: str, value: Any) -> Ref | None:
    """Check `ref`; a reference without an id is called by its path."""
    spec = {
        "id": NAME,
        "path": inside_path,
        "label": LABEL,
        "role": _roles,
        "fit": choice(*REF_FITS),
        "size": _size,
    }
    found = object_of(problems, name, value, spec)
    if found is None:
        return None
    if "id" not in found and "path" in found:
        found["id"] = found["path"]
    if "id" not in found:
        problems.add_text(f"{name}.id", "nothing", "the id or the path of a reference")
        return None
    return Ref(**found)


def _roles(problems: Problems, name: str, value: Any) -> tuple[str, ...] | None:
    roles = [value] if isinstance(value, str) else value
    if isinstance(roles, list) and roles in (["ip"], ["init"], ["ip", "init"], ["init", "ip"]):
        return tuple(roles)
    problems.add(name, value, '["ip"], ["init"] or ["ip", "init"]')
    return None


def _size(problems: Problems, name: str, value: Any) -> tuple[int, int] | None:
    if isinstance(value, list) and len(value) == 2 and all(type(side) is int and side > 0 for side in value):
        return value[0], value[1]
    problems.add(name, value, "[width, height] in pixels")
    return None


def check_lambda(problems: Problems, name: str, value: Any) -> float | LambdaPolicy | None:
    """Check `lambda`: a number or a policy object (null never gets here)."""
    if not isinstance(value, dict):
        if type(value) in (int, float) and 0 <= value <= LAMBDA_MAX:
            return float(value)
        problems.add(name, value, f"a number from 0 to {LAMBDA_MAX:g}, {_LAMBDA_OBJECTS} or null")
        return None
    own: dict[str, Checker] = {"n": SHOTS, **{name: choice(*names) for name, names in AGS_CHOICES.items()}}
    if value.get("policy") == "uniform":
        own = {"lo": number(0, LAMBDA_MAX), "hi": number(0, LAMBDA_MAX)}
    found = object_of(problems, name, value, {"policy": choice(*POLICIES), **own}, required=("policy",))
    if found is None:
        return None
    policy = LambdaPolicy(**found)
    if policy.lo > policy.hi:
        problems.add(f"{name}.lo", policy.lo, f"a number from 0 to hi ({policy.hi:g})")
        return None
    return policy


def check_adapters(problems: Problems, name: str, value: Any) -> tuple[Adapter, ...] | None:
    """Check `adapters`."""
    if not isinstance(value, list):
        problems.add(name, value, 'a list of {"name", "target": "unet", "text" or "ti", "scale"}')
        return None
    spec = {"name": NAME, "target": choice("unet", "text", "ti"), "scale": number(-10, 10)}
    found = [
        object_of(problems, f"{name}[{i}]", v, spec, required=("name", "target")) for i, v in enumerate(value)
    ]
    return None if None in found else tuple(Adapter(**f) for f in found if f is not None)


def check_labels(problems: Problems, name: str, value: Any) -> tuple[tuple[int, float], ...] | None:
    """Check soft `labels`: they sum to 1 (give or take 0.001), or to less, as Diff-Mix's; kept as written."""
    allowed = "a list of [label, weight] pairs, each label once, weights not negative, that sum to 1 or to less"
    if not (isinstance(value, list) and value and all(isinstance(p, list) and len(p) == 2 for p in value)):
        problems.add(name, value, allowed)
        return None
    before = len(problems.found)
    weight = number(0, 1)
    pairs = [
        (LABEL(problems, f"{name}[{i}][0]", label), weight(problems, f"{name}[{i}][1]", share))
        for i, (label, share) in enumerate(value)
    ]
    if len(problems.found) > before:
        return None
    total = sum(share for _, share in pairs)
    if len({label for label, _ in pairs}) < len(pairs) or not 0 < total <= 1 + 1e-3:
        problems.add(name, value, f"{allowed} (above 0; these sum to {total:.6g})")
        return None
    return tuple(pairs)


def check_attrs(problems: Problems, name: str, value: Any) -> Attrs | None:
    """Check `attrs`."""
    spec = {"background": text(), "pose": text(), "donor_id": NAME, "donor_label": LABEL}
    found = object_of(problems, name, value, spec)
    return Attrs(**found) if found else None


def check_init(problems: Problems, name: str, value: Any) -> Init | None:
    """Check `init`."""
    spec = {
        "kind": choice("circle"),
        "refs": _two_refs,
        "alpha": number(-1e6, 1e6),
        "inv_steps": integer(1, 1000),
    }
    found = object_of(problems, name, value, spec, required=("kind", "refs"))
    return None if found is None else Init(**found)


def _two_refs(problems: Problems, name: str, value: Any) -> tuple[str, str] | None:
    if isinstance(value, list) and len(value) == 2:
        first, second = (NAME(problems, f"{name}[{i}]", v) for i, v in enumerate(value))
        return (first, second) if first and second else None
    problems.add(name, value, "two reference ids (the same one twice: its inversion, without a circle)")
    return None


def check_interval(problems: Problems, name: str, value: Any) -> tuple[float, float] | None:
    """Check `guidance_interval`: two shares of the schedule, the smaller first."""
    if isinstance(value, list) and len(value) == 2 and all(type(end) in (int, float) for end in value):
        lo, hi = (float(end) for end in value)
        if 0 <= lo < hi <= 1:  # False for NaN
            return lo, hi
    problems.add(name, value, "two numbers [lo, hi] with 0 <= lo < hi <= 1, for example [0.2, 0.8]")
    return None


_SIDE = integer(8, 4096, multiple=8)
SHAREABLE: dict[str, Checker] = {
    "negative_prompt": text(empty=True),
    "mode": choice(*MODES),
    "lambda": check_lambda,
    "strength": number(0, 1, above=True),
    "adapters": check_adapters,
    "guidance_scale": number(0, 100),
    "guidance_interval": check_interval,
    "steps": integer(1, 1000),
    "scheduler": text(longest=64, one_line=True),
    "width": _SIDE,
    "height": _SIDE,
    "prompt_late": text(),
    "switch": number(0, 1),
    "domain": NAME,
    "attrs": check_attrs,
    "round": integer(0, 1_000_000),
    "parent": NAME,
    "method": NAME,
    "tags": json_object,
}
"""Fields a header may set for all rows."""
_OWN: dict[str, Checker] = {
    "id": NAME,
    "class": NAME,
    "label": LABEL,
    "prompt": text(),
    "seed": integer(0, 2**64 - 1),
    "ref": check_ref,
    "shot": integer(0, 999_999),
    "score": number(-1, SCORE_MAX),
    "labels": check_labels,
    "init": check_init,
    "lambda_mu": number(-100, 100),
    "lambda_sigma": number(0, 1_000_000),
    "lambda_bin": NAME,
    "lambda_sampler": NAME,
}
ROW_FIELDS: tuple[str, ...] = (
    *"id class label prompt negative_prompt seed mode ref shot lambda score strength adapters".split(),
    *"guidance_scale guidance_interval steps scheduler width height labels init prompt_late switch".split(),
    *"domain attrs round parent method tags".split(),
    *"lambda_mu lambda_sigma lambda_bin lambda_sampler".split(),
)
"""Every field of a row, in the order in which it is written; the last four exist in plans and shards."""
ROW_CHECKERS: dict[str, Checker] = {name: {**SHAREABLE, **_OWN}[name] for name in ROW_FIELDS}
