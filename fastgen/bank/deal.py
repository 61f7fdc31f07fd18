"""Deals a bank's sentences out to the references: how many images each one gets, and whether it shares sentences."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from fastgen.bank.read import Bank, check_bank
from fastgen.bank.write import write_bank
from fastgen.errors import BankError, FastgenError
from fastgen.records import Header, Row
from fastgen.seeds import stream

PROMPTS_PER = ("class", "reference")


def deal_bank(
    bank: str | Path,
    out: str | Path,
    *,
    shots: int = 1,
    images_per_ref: int | None = None,
    prompts_per: str = "class",
    seed: int = 0,
    name: str | None = None,
) -> Path:
    """Write a bank whose every row is for one of the references of its class (`shot`).

    A reference gets its sentences in an order of its own, from the first again when there are fewer than images.
    Without this command every reference meets every sentence of its class once.

    Args:
        bank: prompt rows; all of them are held in memory.
        out: the bank to write.
        shots: references per class that sentences are dealt to; n of AGS for rows that name none.
        images_per_ref: images of each reference; None: as many as it has sentences.
        prompts_per: "class": all references of a class choose among all its sentences; "reference": each one has
            sentences of its own, so a class must have at least `shots`.
        seed: of the orders; every reference has its own stream.
        name: of the bank; the file name without its ending when None.

    Returns:
        The path.

    Raises:
        BankError: the bank cannot be used for that; nothing has been written.
        FastgenError: an argument is not allowed.
        OutputError: the path cannot be written.
    """
    if prompts_per not in PROMPTS_PER:
        raise FastgenError(f"prompts_per: got {prompts_per!r}; allowed: {', '.join(PROMPTS_PER)}")
    for what, count in (("shots", shots), ("images_per_ref", 1 if images_per_ref is None else images_per_ref)):
        if count < 1:
            raise FastgenError(f"{what}: got {count}; allowed: 1 or more")
    source = check_bank(bank, reference_exists=lambda row: None)  # rows that name files are refused below
    rows = _prompt_rows(source, at_least=shots if prompts_per == "reference" else 1)
    dealt = {"kind": "dealt", "bank": source.header.name, "sha256": source.sha256, "seed": seed}
    dealt |= {"shots": shots, "images_per_ref": images_per_ref, "prompts_per": prompts_per}
    header = Header(
        name=name if name is not None else Path(out).stem,
        classes=source.header.classes,
        score_template=source.header.score_template,
        defaults={**source.header.defaults, "shots": shots},
        provenance={**dealt, "source": source.header.provenance},
    )
    hands = ((own, shot) for own in rows.values() for shot in range(shots))
    dealt_rows = (
        row
        for own, shot in hands
        for row in _hand(own[shot::shots] if prompts_per == "reference" else own, shot, images_per_ref, seed)
    )
    return write_bank(out, header, dealt_rows)


def _prompt_rows(bank: Bank, *, at_least: int) -> dict[str, list[Row]]:
    """The rows by class, each class with at least so many."""
    rows: dict[str, list[Row]] = {}
    for line, row in bank.rows():
        if row.ref is not None or row.shot is not None or row.seed is not None or row.mode == "latent":
            raise BankError([f"{bank.path}:{line}: got a row for one reference or seed, allowed: prompt rows"])
        rows.setdefault(row.class_, []).append(replace(row, id=row.id or f"line-{line:08d}"))
    for class_, own in rows.items():
        if len(own) < at_least:
            allowed = f"allowed: at least {at_least}, one for each reference"
            raise BankError([f"{bank.path}: class {class_!r}: got {len(own)} prompts, {allowed}"])
    return rows


def _hand(sentences: Sequence[Row], shot: int, count: int | None, seed: int) -> Iterator[Row]:
    """The rows of one reference; every pass through the sentences has an order of its own."""
    rng = stream(seed, f"deal/{sentences[0].class_}/{shot}")
    order: list[int] = []
    for number in range(len(sentences) if count is None else count):
        order = order or rng.permutation(len(sentences)).tolist()
        row = sentences[order.pop()]
        copy = number // len(sentences)
        yield replace(row, id=f"{row.id}.{shot}" + (f".{copy}" if copy else ""), shot=shot)
