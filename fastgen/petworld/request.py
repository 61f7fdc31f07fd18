"""What may be asked of `fastgen.petworld.dataset.export`, and what is wrong with what was asked."""

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from fastgen.fields import Problems, choice, integer, number
from fastgen.petworld.attributes import BACKGROUNDS, NOVEL_PETS, OXFORD_PETS, POSES, STYLES
from fastgen.petworld.breeds import BREEDS

CLASS_SETS = {"oxford": OXFORD_PETS, "novel": NOVEL_PETS}

SPLITS = {"balanced": ("per_class",), "few-shot": ("shots",), "long-tail": ("per_class", "imbalance"),
          "confounded": ("per_class", "confounding")}  # fmt: skip
"""Per split: the arguments that only some splits use."""

LARGEST_CLASS = 100_000
"""Most pictures of one class; five digits number them."""

_SELECTIVE = tuple(dict.fromkeys(name for names in SPLITS.values() for name in names))
_PLACES = len(BACKGROUNDS) * len(POSES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The arguments of `export` after `check`, with its defaults; `export` says what they mean."""

    classes: tuple[str, ...] = OXFORD_PETS
    split: str = "balanced"
    per_class: int = 20
    shots: int = 1
    imbalance: float = 100.0
    confounding: float = 0.9
    test_per_class: int = 10
    styles: tuple[str, ...] = ("photo",)
    realism: tuple[float, float] = (0.4, 0.8)
    seed: int = 0
    size: int = 64

    def recorded(self) -> dict[str, Any]:
        """The arguments that the pictures of this split depend on, as JSON values."""
        used = SPLITS[self.split]
        wanted = [f.name for f in fields(self) if f.name not in _SELECTIVE or f.name in used]
        return json.loads(json.dumps({name: getattr(self, name) for name in wanted}))


def check(**given: Any) -> Request:
    """Checks all arguments of `export`.

    Args:
        given: every field of `Request`, as the user wrote it.

    Returns:
        the request.

    Raises:
        FieldErrors: lists everything that is wrong.
    """
    problems = Problems()
    count = integer(1, LARGEST_CLASS)
    checkers: dict[str, Callable[[Problems, str, Any], Any]] = {
        "classes": _check_classes,
        "split": choice(*SPLITS),
        "per_class": count,
        "shots": count,
        "imbalance": number(1, LARGEST_CLASS),
        "confounding": number(0, 1),
        "test_per_class": count,
        "styles": _check_styles,
        "realism": _check_realism,
        "seed": integer(0, 2**63 - 1),
        "size": integer(16, 1024),
    }
    values = {name: checker(problems, name, given[name]) for name, checker in checkers.items()}
    if values["split"] is not None:
        _refuse_unused(problems, values["split"], given)
    classes = values["classes"] or ()
    if values["split"] == "confounded" and len(classes) > _PLACES:
        allowed = f"at most {_PLACES} when confounded: there are no more pairs of background and pose"
        problems.add_text("classes", f"{len(classes)} classes", allowed)
    problems.raise_if_any()
    return Request(**values)


def _refuse_unused(problems: Problems, split: str, given: dict[str, Any]) -> None:
    """Notes every argument that was given although the split makes no use of it."""
    defaults = {f.name: f.default for f in fields(Request)}
    for name in _SELECTIVE:
        if name not in SPLITS[split] and given[name] != defaults[name]:
            users = " and ".join(f'"{other}"' for other, used in SPLITS.items() if name in used)
            allowed = f'{defaults[name]}, its default, with split "{split}"; only {users} can change it'
            problems.add(name, given[name], allowed)


def _check_classes(problems: Problems, field: str, value: Any) -> tuple[str, ...] | None:
    if isinstance(value, str) and value in CLASS_SETS:
        return CLASS_SETS[value]
    allowed = '"oxford", "novel" or a list of different breeds'
    if not _is_list_of_text(value) or len(set(value)) < len(value):
        problems.add(field, value, allowed)
        return None
    unknown = [name for name in value if name not in BREEDS]
    if not unknown:
        return tuple(value)
    close = [m for name in unknown for m in difflib.get_close_matches(name, (*CLASS_SETS, *BREEDS), n=1)]
    hint = f" (did you mean {', '.join(map(repr, close))}?)" if close else ""
    every = ", ".join((*OXFORD_PETS, *NOVEL_PETS))
    problems.add(field, unknown, f"{allowed}{hint}: {every}, Pretraining 00 to Pretraining 63")
    return None


def _check_styles(problems: Problems, field: str, value: Any) -> tuple[str, ...] | None:
    if _is_list_of_text(value) and len(set(value)) == len(value) and set(value) <= set(STYLES):
        return tuple(value)
    problems.add(field, value, f"a list of one or more different styles of: {', '.join(STYLES)}")
    return None


def _check_realism(problems: Problems, field: str, value: Any) -> tuple[float, float] | None:
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(type(v) in (int, float) for v in value):
        lo, hi = float(value[0]), float(value[1])
        if 0.0 <= lo <= hi <= 1.0:
            return lo, hi
    problems.add(field, value, "two numbers, lower and upper end, from 0 to 1")
    return None


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(v, str) for v in value)
