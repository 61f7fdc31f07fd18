"""Import of the prompt file that DALDA's official code writes: JSON, `{class: [sentences]}`."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastgen.bank.class_names import ClassNames
from fastgen.bank.dalda import dalda_header, dalda_rows
from fastgen.bank.defaults import PAPER
from fastgen.bank.tokens import token_limit, too_long
from fastgen.bank.write import write_bank
from fastgen.errors import SHOWN, BankError, FieldErrors
from fastgen.fields import Problems, parse_object, text
from fastgen.files import sha256_file
from fastgen.records import Header, Row

Say = Callable[[str], None]

_ALLOWED = "allowed: {class: [sentences]} as JSON, every class once"


def import_dalda_bank(
    prompts: str | Path,
    out: str | Path,
    *,
    refs: str | None = None,
    profile: str = PAPER,
    defaults: Mapping[str, Any] | None = None,
    tokenizer: str | Path | None = None,
    name: str | None = None,
    say: Say = print,
) -> Path:
    """Make a bank of the JSON file `{class: [sentences]}` that DALDA's official code writes and reads.

    The order of its classes defines the label ids, as it does there. Sentences are taken as they stand (braces
    too: nothing is formatted), except where the official script has read UTF-8 as Latin-1; that is undone. What
    looks wrong and is still usable is said, and imported.

    Args:
        prompts: the file.
        out: path of the bank.
        refs: header's folder of references, or "petworld".
        profile: "dalda-paper" or "dalda-official": what the header says where they differ.
        defaults: header defaults that come before DALDA's, such as {"policy": "uniform"}.
        tokenizer: engine or model folder whose tokenizer counts; None takes CLIP's.
        name: of the bank; the file name of `out` without its ending when None.
        say: is told every warning.

    Returns:
        The path of the bank.

    Raises:
        BankError: the file is not such a JSON; nothing has been written.
        ModelError: `tokenizer` holds none.
        OutputError: the path cannot be written.
    """
    found, repaired = _read(Path(prompts))
    provenance = {"kind": "dalda json", "file": Path(prompts).name, "sha256": sha256_file(prompts)}
    try:
        header = dalda_header(
            name or Path(out).stem, list(found), refs=refs, profile=profile, defaults=defaults, provenance=provenance
        )
    except FieldErrors as error:
        raise BankError([f"{prompts}: {problem}" for problem in error.problems]) from None
    rows = dalda_rows(header, found)
    _warn(say, "sentences were in the wrong encoding and are repaired", repaired)
    _warn(say, "classes have another number of sentences than most", _uneven(found))
    _warn(say, "sentences do not fit their class", _misplaced(header, rows))
    prefix = header.defaults.get("prefix") or ""
    _warn(say, "prompts are not read to their end", too_long(rows, prefix, token_limit(tokenizer)))
    return write_bank(out, header, rows)


def _read(path: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Return the sentences by class, and the repaired ones as text for a warning."""
    try:
        content = parse_object(path.read_text(encoding="utf-8-sig"), what="file")
    except OSError as error:
        raise BankError([f"{path}: cannot be read ({error.strerror or error})"]) from error
    except UnicodeDecodeError as error:
        raise BankError([f"{path}: got bytes that are not UTF-8 ({error}), allowed: JSON in UTF-8"]) from error
    except FieldErrors as error:
        raise BankError([f"{path}: got {problem.got}, {_ALLOWED}" for problem in error.problems]) from None
    if not content:
        raise BankError([f"{path}: got {{}}, {_ALLOWED}"])
    problems = Problems()
    check = text()
    found: dict[str, list[str]] = {}
    repaired = []
    for class_, sentences in content.items():
        if not isinstance(sentences, list) or not sentences:
            problems.add(class_, sentences, "a list of at least one sentence")
            continue
        found[class_] = []
        for i, sentence in enumerate(sentences):
            if check(problems, f"{class_}[{i}]", sentence) is not None:
                right = _without_mojibake(sentence)
                found[class_].append(right)
                repaired += [f"{class_}[{i}]: {right}"] if right != sentence else []
    if problems.found:
        raise BankError([f"{path}: {problem}" for problem in problems.found])
    return found, repaired


def _without_mojibake(sentence: str) -> str:
    """Undo the official script's reading of UTF-8 as Latin-1; a text that is right as it is stays so."""
    if sentence.isascii():
        return sentence
    try:
        return sentence.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return sentence


def _uneven(found: Mapping[str, Sequence[str]]) -> list[str]:
    usual = Counter(map(len, found.values())).most_common(1)[0][0]
    return [f"{class_}: {len(texts)}, not {usual}" for class_, texts in found.items() if len(texts) != usual]


def _misplaced(header: Header, rows: Sequence[Row]) -> list[str]:
    """Say which rows do not name their class, name another one, or repeat a sentence of their class."""
    names = ClassNames(header.classes)
    seen: set[tuple[str, str]] = set()
    lines = []
    for row in rows:
        fault = names.fault(row.class_, row.prompt)
        if (row.class_, row.prompt) in seen:
            fault = "it repeats an earlier one"
        seen.add((row.class_, row.prompt))
        lines += [f"row {row.id} ({row.class_}): {fault}"] if fault else []
    return lines


def _warn(say: Say, what: str, lines: Sequence[str]) -> None:
    """Say how many there are and list the first of them; nothing for none."""
    if lines:
        say(f"warning: {len(lines)} {what}")
        for line in lines[:SHOWN]:
            say(f"  {line}")
        if len(lines) > SHOWN:
            say(f"  ... and {len(lines) - SHOWN} more")
