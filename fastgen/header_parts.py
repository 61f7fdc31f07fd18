"""What only a header's `defaults` may hold, beside the row fields: how a bank is planned, with the checkers."""

from typing import Any

from fastgen.fields import Checker, Problems, choice, inside_path, integer, number, object_of, text
from fastgen.row_parts import AGS_CHOICES, LAMBDA_MAX, POLICIES, REF_FITS, SHOTS

PETWORLD = "petworld"
"""The value of `defaults.refs` that means references drawn on the fly."""
SCORES = ("softmax", "cosine", "clipscore")
SCORE_FITS = ("center_crop", "squash")
SEED_MODES = ("row", "stream")


def check_policy(problems: Problems, name: str, value: Any) -> str | float | None:
    """Check `policy`: the name of a policy, or lambda itself."""
    if type(value) in (int, float):
        return number(0, LAMBDA_MAX)(problems, name, value)
    if isinstance(value, str) and value in POLICIES:
        return value
    problems.add(name, value, f'"ags", "uniform" or a number from 0 to {LAMBDA_MAX:g}')
    return None


def check_ags(problems: Problems, name: str, value: Any) -> dict[str, Any] | None:
    """Check `ags`: options of AGS for the whole bank, and how its references are scored."""
    return object_of(problems, name, value, _AGS)


_AGS: dict[str, Checker] = {
    **{name: choice(*names) for name, names in AGS_CHOICES.items()},
    "score": choice(*SCORES),
    "score_fit": choice(*SCORE_FITS),
    "score_round": integer(0, 15),
}
HEADER_ONLY: dict[str, Checker] = {
    "refs": inside_path,
    "policy": check_policy,
    "shots": SHOTS,
    "prefix": text(empty=True),
    "ags": check_ags,
    "ref_fit": choice(*REF_FITS),
    "seed_mode": choice(*SEED_MODES),
}
"""Fields of `defaults` that no row has: `refs` names the references, `shots` how many of them a class has, `policy`
lambda; `prefix` goes before every prompt; `ags` sets AGS and its scores; `ref_fit` is the rows' `ref.fit`; `seed_mode`
says whether every row draws from its own seed, or all from one stream in the order of the plan."""
