"""How many synthetic images every class gets."""

from collections.abc import Sequence

from fastgen.errors import BankError


def images_per_class(
    real: Sequence[int],
    *,
    per_class: int | None = None,
    per_real: int | None = None,
    budget: int | None = None,
    copies: int | None = None,
) -> list[int]:
    """Count the synthetic images of every class.

    Args:
        real: number of real training images of every class.
        per_class: so many for each class.
        per_real: so many for each real image (5 in Diff-Mix and Diff-II).
        budget: for a long tail, as in BOB: so many images of each class in all, of which its real ones,
            `copies` times each, are a part: max(0, budget - copies * real).
        copies: how often every real image will be repeated in training (6 for CUB-LT, 5 for Flower-LT); with `budget`.

    Returns:
        One number per class, >= 0.

    Raises:
        BankError: not exactly one of the three rules is given, or a number is too small.
    """
    rules = {"per_class": per_class, "per_real": per_real, "budget": budget}
    given = [name for name, value in rules.items() if value is not None]
    if len(given) != 1:
        raise BankError([f"got {' and '.join(given) or 'nothing'}, allowed: one of per_class, per_real and budget"])
    if (budget is None) != (copies is None):
        raise BankError(["budget and copies: got one of them, allowed: both, as in budget 200 and copies 6"])
    for name, value in {**rules, "copies": copies}.items():
        if value is not None and (type(value) is not int or value < (0 if name == "copies" else 1)):
            raise BankError([f"{name}: got {value!r}, allowed: a whole number from {0 if name == 'copies' else 1}"])
    if per_class is not None:
        return [per_class] * len(real)
    if per_real is not None:
        return [per_real * count for count in real]
    assert budget is not None and copies is not None
    return [max(0, budget - copies * count) for count in real]
