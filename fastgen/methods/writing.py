"""What the banks of all methods have in common: header, ids, seeds, and no image prompt."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastgen.bank.write import write_bank
from fastgen.errors import BankError, FieldErrors
from fastgen.fields import show
from fastgen.records import Header, Row
from fastgen.seeds import row_seed

SEED_MODES = ("per_row", "per_class_reset")


def method_header(
    out: str | Path,
    classes: Sequence[str],
    *,
    method: str,
    defaults: Mapping[str, Any],
    provenance: Mapping[str, Any],
    name: str | None = None,
) -> Header:
    """Return a checked header.

    Args:
        out: path of the bank.
        classes: ordered class names; their order defines the label ids.
        method: name of the method, for `defaults.method` and `provenance.kind`.
        defaults: of the rows; None means not given.
        provenance: how the rows were drawn.
        name: of the bank; the file name without its ending when None.

    Raises:
        BankError: a name or a default is not usable.
    """
    header = Header(
        name=name if name is not None else Path(out).stem,
        classes=tuple(classes),
        defaults={key: value for key, value in {**defaults, "method": method}.items() if value is not None},
        provenance={"kind": method, **provenance},
    )
    try:
        return Header.from_json(header.to_json())
    except FieldErrors as error:
        raise BankError([f"{out}: {problem}" for problem in error.problems]) from None


def write_method_bank(out: str | Path, header: Header, rows: Iterable[Row], *, seed: int, seed_mode: str) -> Path:
    """Write a bank.

    Args:
        out: path of the bank.
        header: checked.
        rows: as for `finished`, which gives them their ids and seeds.
        seed, seed_mode: as for `finished`.

    Raises:
        BankError: the reader would refuse it, it has no rows, or there is no such mode.
        OutputError: the path cannot be written.
    """
    return write_bank(out, header, finished(rows, seed=seed, seed_mode=seed_mode))


def finished(rows: Iterable[Row], *, seed: int, seed_mode: str) -> Iterator[Row]:
    """Give rows their ids and seeds, and say that they have no image prompt.

    Args:
        rows: with class and label, in any order; row k of a class (from 0) gets the id `<label>-<k>`.
        seed: of the bank.
        seed_mode: "per_row": noise of its own for each image; "per_class_reset": image k of every class starts from
            the same noise, as in DataDream's code, which lowers the diversity between classes.

    Raises:
        BankError: there is no such mode.
    """
    check_choice("seed_mode", seed_mode, SEED_MODES)
    count: Counter[str] = Counter()
    for row in rows:
        k = count[row.class_]
        count[row.class_] += 1
        id_ = f"{row.label:05d}-{k:04d}"
        number = row_seed(seed, id_ if seed_mode == "per_row" else f"image {k} of every class")
        yield replace(row, id=id_, seed=number, lambda_null=True)


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raises BankError if `value` is none of the names."""
    if value not in allowed:
        raise BankError([f"{name}: got {show(value)}, allowed: {', '.join(allowed)}"])
