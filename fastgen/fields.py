"""Strict reading of JSON: one line to one object, and one checker per kind of value.

A checker takes the problem list, the field's name and the value, and returns the value in its Python type; if
it is wrong it adds a problem and returns None. Nothing is converted silently: true is not 1, 30.0 is no whole
number, "3" is not 3, and NaN and infinity are not numbers.
"""

import difflib
import json
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import PurePosixPath
from typing import Any

from fastgen.errors import FieldErrors, FieldProblem

MAX_NESTING = 64
"""How deep objects and lists may be nested in `tags` and `provenance`."""


class Problems:
    """Collects the bad fields of one JSON object, so that all of them are reported and not only the first."""

    def __init__(self) -> None:
        """Start with no problem."""
        self.found: list[FieldProblem] = []

    def add(self, field: str, got: object, allowed: str) -> None:
        """Note that `field` holds `got` (any JSON value) where `allowed` says what may stand there."""
        self.found.append(FieldProblem(field, show(got), allowed))

    def add_text(self, field: str, got: str, allowed: str) -> None:
        """Note a problem whose `got` is a description ("nothing", "an unknown field"), not a value."""
        self.found.append(FieldProblem(field, got, allowed))

    def raise_if_any(self) -> None:
        """Raise FieldErrors with everything that was found, or do nothing."""
        if self.found:
            raise FieldErrors(self.found)


Checker = Callable[[Problems, str, Any], Any]


def show(value: object, *, width: int = 80) -> str:
    """Return `value` as JSON, safe to print (control characters escaped), at most `width` characters."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = f"a value of type {type(value).__name__}"
    text = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[: width + 1])
    return text if len(text) <= width else text[: width - 3] + "..."


def parse_object(text: str, *, what: str = "line") -> dict[str, Any]:
    """Return the JSON object that `text` holds.

    Args:
        text: one line of a file, or a whole small file.
        what: how to call `text` in a message.

    Raises:
        FieldErrors: not JSON, not an object, a key twice, NaN or Infinity, or nested too deeply.
    """
    problems = Problems()

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            names = [name for name, _ in items]
            for name in sorted({n for n in names if names.count(n) > 1}):
                problems.add_text(
                    name,
                    f"the key {show(name)} {names.count(name)} times",
                    "each key once; delete all but one",
                )
        return found

    def constant(name: str) -> float:
        problems.add_text(what, name, "finite numbers; JSON has no NaN and no Infinity, write null")
        return 0.0

    allowed = 'one JSON object {"field": value, ...} in one line'
    value: Any = None
    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except json.JSONDecodeError as error:
        got = f"{show(text, width=60)} (JSON ends at column {error.colno}: {error.msg})"
        problems.add_text(what, got, allowed)
    except (ValueError, RecursionError) as error:  # a number of more than 4300 digits; 1000 opening brackets
        problems.add_text(what, f"{show(text, width=60)} ({error})", allowed)
    else:
        if not isinstance(value, dict):
            problems.add(what, value, allowed)
    problems.raise_if_any()
    return value


def unknown_fields(
    problems: Problems, value: Mapping[str, Any], known: Collection[str], *, prefix: str = ""
) -> None:
    """Note every key of `value` that is not in `known`, with the closest known name if there is one."""
    for key in value:
        if key not in known:
            close = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.6)
            hint = f"did you mean {close[0]!r}? Known fields: " if close else ""
            problems.add_text(f"{prefix}{key}", "an unknown field", f"{hint}{', '.join(known)}")


def text(*, empty: bool = False, longest: int | None = None, one_line: bool = False) -> Checker:
    """Return a checker for a string that can be stored as UTF-8: no NUL and no lone surrogate.

    Args:
        empty: whether "" and blanks only are allowed.
        longest: most characters, or None for no limit.
        one_line: whether control characters (tab, line break) are refused.
    """
    allowed = "text" if empty else "text that is not empty"
    allowed += f" of at most {longest} characters" if longest else ""
    allowed += " without control characters" if one_line else " without NUL characters"

    def check(problems: Problems, field: str, value: Any) -> str | None:
        good = (
            isinstance(value, str)
            and (empty or value.strip() != "")
            and not (longest and len(value) > longest)
        )
        if good and not _is_clean(value, one_line):
            good = False
        if good:
            return value
        problems.add(field, value, allowed)
        return None

    return check


def integer(lo: int, hi: int, *, multiple: int = 1) -> Checker:
    """Return a checker for a whole number in [lo, hi] that is a multiple of `multiple`."""
    allowed = f"a whole number from {lo} to {hi}" + (
        f" that is a multiple of {multiple}" if multiple > 1 else ""
    )

    def check(problems: Problems, field: str, value: Any) -> int | None:
        if type(value) is int and lo <= value <= hi and value % multiple == 0:
            return value
        problems.add(field, value, allowed)
        return None

    return check


def number(lo: float, hi: float, *, above: bool = False) -> Checker:
    """Return a checker for a finite number in [lo, hi], or in (lo, hi] with `above`; it gives a float."""
    allowed = f"a number above {lo:g} up to {hi:g}" if above else f"a number from {lo:g} to {hi:g}"

    def check(problems: Problems, field: str, value: Any) -> float | None:
        if type(value) in (int, float) and lo <= value <= hi and not (above and value == lo):  # false for NaN
            return float(value)
        problems.add(field, value, allowed)
        return None

    return check


def choice(*names: str) -> Checker:
    """Return a checker for one of `names`; a near miss is answered with the close name."""
    allowed = " or ".join(f'"{name}"' for name in names)

    def check(problems: Problems, field: str, value: Any) -> str | None:
        if isinstance(value, str) and value in names:
            return value
        close = difflib.get_close_matches(value.lower(), names, n=1) if isinstance(value, str) else []
        problems.add(field, value, allowed + (f" (did you mean {close[0]!r}?)" if close else ""))
        return None

    return check


def inside_path(problems: Problems, field: str, value: Any) -> str | None:
    """Check a relative path that cannot leave its folder by its spelling (links are checked on disk)."""
    good = isinstance(value, str) and value.strip() != "" and _is_clean(value, True) and "\\" not in value
    if good:
        path = PurePosixPath(value)
        good = (
            not path.is_absolute()
            and ".." not in path.parts
            and path.parts != ()
            and path.parts[0][1:2] != ":"
        )
    if good:
        return value
    problems.add(
        field,
        value,
        "a path relative to the bank's or the --refs folder, with / between names and without '..'",
    )
    return None


def json_object(problems: Problems, field: str, value: Any) -> dict[str, Any] | None:
    """Check an object of any JSON values (finite numbers, clean text, nested at most `MAX_NESTING` deep)."""
    if isinstance(value, dict) and _is_plain(value, MAX_NESTING):
        return value
    problems.add(
        field,
        value,
        "an object of JSON values: finite numbers, text without NUL, true, false, null, lists, objects",
    )
    return None


def object_of(
    problems: Problems, field: str, value: Any, spec: Mapping[str, Checker], *, required: tuple[str, ...] = ()
) -> dict[str, Any] | None:
    """Check an object with the fields of `spec`; return those that are not null, or None if any is bad."""
    if not isinstance(value, dict):
        problems.add(field, value, f"an object with the fields {', '.join(spec)}")
        return None
    before = len(problems.found)
    unknown_fields(problems, value, spec, prefix=f"{field}.")
    for name in required:
        if value.get(name) is None:
            problems.add_text(f"{field}.{name}", "nothing", f"{field} needs its {' and its '.join(required)}")
    found = {n: spec[n](problems, f"{field}.{n}", v) for n, v in value.items() if n in spec and v is not None}
    return found if len(problems.found) == before else None


def _is_clean(value: str, one_line: bool) -> bool:
    """Tell whether a string has no NUL, is encodable as UTF-8, and has no control character if `one_line`."""
    if value.isascii() and value.isprintable():
        return True
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        return False
    return not one_line or not any(ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029" for c in value)


def _is_plain(value: Any, depth: int) -> bool:
    if isinstance(value, str):
        return _is_clean(value, False)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, (dict, list)):
        if depth == 0:
            return False
        items = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        return all(_is_plain(item, depth - 1) for item in items)
    return value is None or isinstance(value, (bool, int))
