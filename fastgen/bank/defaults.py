"""The `defaults` of a bank's header: DALDA's two profiles, and what a user sets by hand."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastgen.errors import FastgenError
from fastgen.records import Header

PAPER, OFFICIAL = "dalda-paper", "dalda-official"
PROFILES: dict[str, dict[str, Any]] = {
    PAPER: {},
    OFFICIAL: {"ags": {"sampler": "clipnorm", "high_max": "grow_sqrt_n", "score_round": 5}},
}
"""Profile -> header defaults. The paper's choices are what fastgen does when a header says nothing."""
PROFILE_FIELDS = ("ags", "ref_fit", "seed_mode")
"""Defaults that a profile decides: those on which DALDA's paper and its code differ, and nothing else of a bank."""


def check_profile(name: str | None) -> None:
    """Refuse a profile that does not exist; None is no profile.

    Raises:
        FastgenError: there is no such profile.
    """
    if name is not None and name not in PROFILES:
        raise FastgenError(f"profile: got {name!r}; allowed: {', '.join(PROFILES)}")


def with_profile(header: Header, profile: str | None) -> Header:
    """The header with a profile's choices in place of its own; itself without a profile.

    Raises:
        FastgenError: there is no such profile.
    """
    check_profile(profile)
    if profile is None:
        return header
    kept = {name: value for name, value in header.defaults.items() if name not in PROFILE_FIELDS}
    return Header.from_json({**header.to_json(), "defaults": {**kept, **PROFILES[profile]}})


def merge_defaults(defaults: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Header defaults with those that a user gives in place of the bank maker's; objects (`ags`) are merged.

    Args:
        defaults: of the bank maker.
        given: field -> JSON value; a `lambda` takes the place of `policy` and the other way round.
    """
    given = given or {}
    twins = {"lambda": "policy", "policy": "lambda"}
    replaced = {twins[name] for name in given if name in twins}
    merged = {name: value for name, value in defaults.items() if name not in replaced}
    for name, value in given.items():
        old = merged.get(name)
        merged[name] = {**old, **value} if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def parse_defaults(texts: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUE arguments; NAME may be `ags.sampler`, VALUE is JSON, or else text as it stands.

    What a header may hold is checked when the bank is written.

    Raises:
        FastgenError: a text is not of that form, or a name occurs twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        outer, dot, inner = name.partition(".")
        if not equals or not outer or (dot and not inner):
            raise FastgenError(f"default {text!r}: write NAME=VALUE, as in steps=30, prefix= or ags.sampler=clipnorm")
        place = found.setdefault(outer, {}) if dot else found
        if not isinstance(place, dict) or (inner or outer) in place:
            raise FastgenError(f"default {name}: got it twice; give it once")
        place[inner or outer] = _json_or_text(value)
    return found


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value
