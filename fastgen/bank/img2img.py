"""The two img2img baselines that DALDA is compared with, as banks: Real Guidance and DA-Fusion.

Both start from the reference instead of using it as image prompt: no lambda, no prefix, no negative prompt, and the
settings of Stable Diffusion's pipeline (50 steps of PNDM, guidance 7.5).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastgen.bank.defaults import merge_defaults
from fastgen.bank.write import write_bank
from fastgen.class_words import words_of
from fastgen.errors import BankError, FastgenError, FieldErrors
from fastgen.records import Header
from fastgen.seeds import row_seed, stream

PIPELINE = {"mode": "img2img", "guidance_scale": 7.5, "steps": 50, "scheduler": "pndm"}
BY_SHOTS = {1: 0.5, 2: 0.4, 4: 0.35, 8: 0.2, 16: 0.15}
"""Shots per class -> strength, of Real Guidance's own code; DALDA ran it with 0.5 for all of them."""
STRENGTHS = (1.0, 0.75, 0.5, 0.25)
"""Strengths that DA-Fusion draws from."""


def write_real_guidance_bank(
    classes: Sequence[str],
    out: str | Path,
    *,
    strength: float | str = 0.5,
    shots: int = 1,
    images_per_ref: int = 10,
    refs: str | None = None,
    defaults: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Path:
    """Write the bank of Real Guidance as DALDA ran it: "a photo of a <name>" from every reference.

    Args:
        classes: ordered class names, spelt with spaces; their order defines the label ids.
        out: path of the bank.
        strength: share of the schedule that is run, above 0 up to 1; or "by_shots" (`BY_SHOTS`).
        shots: references per class.
        images_per_ref: images of each reference.
        refs: header's folder of references relative to the bank, or "petworld"; None leaves it to `--refs`.
        defaults: header defaults in place of these, such as {"steps": 25}.
        name: of the bank; the file name without its ending when None.

    Returns:
        The path.

    Raises:
        FastgenError: an argument is not allowed; nothing has been written.
        OutputError: the path cannot be written.
    """
    _check(images_per_ref, shots)
    own = {"shots": shots, **PIPELINE, "strength": _strength(strength, shots), "method": "real-guidance"}
    made = {"kind": "real guidance", "strength": strength, "images_per_ref": images_per_ref}
    header = _header(classes, out, name=name, refs=refs, own=own, given=defaults, provenance=made)
    rows = (
        {**_row(label, class_, f"{i:03d}"), "prompt": f"a photo of a {class_}"}
        for label, class_ in enumerate(header.classes)
        for i in range(images_per_ref)
    )
    return write_bank(out, header, rows)


def write_da_fusion_bank(
    classes: Sequence[str],
    out: str | Path,
    *,
    strengths: Sequence[float] = STRENGTHS,
    shots: int = 1,
    images_per_ref: int = 10,
    seed: int = 0,
    refs: str | None = None,
    defaults: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Path:
    """Write the bank of DA-Fusion: "a photo of a <word>" with the word that was learned for the class.

    The engine must have the words: `fastgen build --embedding FOLDER`, a file for each class, named as in
    `fastgen.class_words`.

    Args:
        classes: ordered class names; their order defines the label ids.
        out: path of the bank.
        strengths: every row draws one of them, all alike.
        shots: references per class; each has rows of its own.
        seed: of the strengths.
        images_per_ref, refs, defaults, name: as for `write_real_guidance_bank`.

    Returns:
        The path.

    Raises:
        FastgenError: an argument is not allowed, or two classes have the same word; nothing has been written.
        OutputError: the path cannot be written.
    """
    _check(images_per_ref, shots)
    for strength in strengths:
        _strength(strength, shots)
    own = {"shots": shots, **PIPELINE, "method": "da-fusion"}
    made = {"kind": "da-fusion", "strengths": list(strengths), "images_per_ref": images_per_ref, "seed": seed}
    header = _header(classes, out, name=name, refs=refs, own=own, given=defaults, provenance=made)
    return write_bank(out, header, _da_fusion_rows(header, strengths, shots, images_per_ref, seed))


def _da_fusion_rows(
    header: Header, strengths: Sequence[float], shots: int, images_per_ref: int, seed: int
) -> Iterator[dict[str, Any]]:
    words = words_of(header.classes)
    for label, class_ in enumerate(header.classes):
        for shot in range(shots):
            for i in range(images_per_ref):
                row = _row(label, class_, f"{shot:02d}-{i:03d}")
                drawn = int(stream(row_seed(seed, row["id"]), "strength").integers(len(strengths)))
                yield row | {
                    "shot": shot,
                    "prompt": f"a photo of a {words[class_]}",
                    "strength": strengths[drawn],
                    "adapters": [{"name": words[class_], "target": "ti"}],
                }


def _row(label: int, class_: str, number: str) -> dict[str, Any]:
    """What all rows have; without lambda, whatever the run's policy is."""
    return {"id": f"{label:05d}-{number}", "class": class_, "label": label, "lambda": None}


def _header(
    classes: Sequence[str],
    out: str | Path,
    *,
    name: str | None,
    refs: str | None,
    own: Mapping[str, Any],
    given: Mapping[str, Any] | None,
    provenance: dict[str, Any],
) -> Header:
    defaults = {**({} if refs is None else {"refs": refs}), **own}
    header = Header(
        name=name if name is not None else Path(out).stem,
        classes=tuple(classes),
        defaults=merge_defaults(defaults, given),
        provenance=provenance,
    )
    try:
        return Header.from_json(header.to_json())
    except FieldErrors as error:
        raise BankError([f"{out}:1: {problem}" for problem in error.problems]) from None


def _strength(strength: float | str, shots: int) -> float:
    """The strength that is meant, as a number."""
    if strength == "by_shots":
        if shots not in BY_SHOTS:
            known = ", ".join(map(str, BY_SHOTS))
            raise FastgenError(f"strength by_shots: got {shots} shots; allowed: {known}; or give a number")
        return BY_SHOTS[shots]
    try:
        number = float(strength)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise FastgenError(f"strength: got {strength!r}; allowed: a number above 0 up to 1, or by_shots")
    return number


def _check(images_per_ref: int, shots: int) -> None:
    for what, count in (("images_per_ref", images_per_ref), ("shots", shots)):
        if count < 1:
            raise FastgenError(f"{what}: got {count}; allowed: 1 or more")
