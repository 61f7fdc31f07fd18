"""DALDA's bank: a language model writes one sentence per class and call, and nothing unfit gets into the bank."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastgen.bank.answer_cache import AnswerCache
from fastgen.bank.asking import number_problems
from fastgen.bank.chat import Chat, Messages
from fastgen.bank.class_names import ClassNames
from fastgen.bank.dalda import dalda_header, dalda_rows
from fastgen.bank.defaults import PAPER
from fastgen.bank.endpoint import KEY_ENV, OPENAI_URL, Endpoint, Patience
from fastgen.bank.instruction import INSTRUCTION, messages_for
from fastgen.bank.local_chat import LocalChat
from fastgen.bank.local_model import local_folder
from fastgen.bank.rounds import Rounds, cut
from fastgen.bank.sentences import Judge
from fastgen.bank.tokens import token_limit
from fastgen.bank.write import write_bank
from fastgen.errors import BankError, FieldErrors
from fastgen.files import sha256_json
from fastgen.job import StopSignal
from fastgen.records import Header

MOST_CLASSES = 128
"""Classes in one request unless `batch_classes` says otherwise: enough for DALDA's 102, few enough for one answer."""

Say = Callable[[str], None]


def write_llm_bank(
    classes: Sequence[str],
    out: str | Path,
    *,
    description: str,
    model: str,
    base_url: str | None = None,
    key_env: str = KEY_ENV,
    per_class: int = 10,
    batch_classes: int | None = None,
    temperature: float = 1.0,
    concurrency: int = 4,
    cache: str | Path | None = None,
    refs: str | None = None,
    profile: str = PAPER,
    defaults: Mapping[str, Any] | None = None,
    tokenizer: str | Path | None = None,
    name: str | None = None,
    patience: Patience | None = None,
    say: Say = print,
) -> Path:
    """Write a bank of `per_class` sentences for each class, written by a language model.

    Each of `per_class` calls brings one sentence for every class. Sentences are matched to classes by name. One that
    is missing, repeats another, names no or another class, or is longer than the text encoder reads, is asked for
    again. Every answer is kept in `cache`: a rerun asks nothing and writes the same bytes, an interrupted one goes
    on. The bank does not depend on `concurrency`.

    Args:
        classes: ordered class names, as they should stand in the sentences; their order defines the label ids.
        out: path of the bank.
        description: of the data set, a few sentences.
        model: name at the endpoint; or, without `base_url`, the folder of a local transformers model.
        base_url: of an OpenAI-compatible API, such as `http://localhost:8000/v1`; None takes OpenAI's.
        key_env: environment variable that holds the key.
        per_class: sentences for each class.
        batch_classes: most classes in one request; None takes `MOST_CLASSES`.
        temperature: of sampling, 0..2.
        concurrency: requests under way at once.
        cache: folder of answers; None takes `<out>.cache`.
        refs: header's folder of references relative to the bank, or "petworld".
        profile: "dalda-paper" or "dalda-official": what the header says where they differ.
        defaults: header defaults that come before DALDA's, such as {"policy": "uniform"}.
        tokenizer: engine or model folder whose tokenizer counts; None takes CLIP's.
        name: of the bank; the file name without its ending when None.
        patience: tries and timeouts at an endpoint.
        say: is told the progress, one line at a time.

    Returns:
        The path.

    Raises:
        BankError: an argument is bad, or sentences are still missing after several rounds; no bank is written.
        ChatError, ModelError: the model cannot be asked.
        Interrupted: a signal stopped it; the answers are kept.
        OutputError: the bank or the cache cannot be written.
    """
    batch = MOST_CLASSES if batch_classes is None else batch_classes
    _check(description, temperature, per_class=per_class, batch_classes=batch, concurrency=concurrency)
    settings = {"refs": refs, "profile": profile, "defaults": defaults}
    header = _header(name or Path(out).stem, classes, **settings)
    names = ClassNames(classes)
    chat = open_chat(model, base_url=base_url, key_env=key_env, patience=patience)
    rounds = Rounds(
        chat=chat,
        cache=AnswerCache(cache if cache is not None else f"{out}.cache"),
        judge=Judge(names, header.defaults.get("prefix") or "", token_limit(tokenizer)),
        names=names,
        description=description,
        temperature=float(temperature),
        batch=batch,
        say=say,
    )
    with StopSignal() as stop:
        found = rounds.run([(call, class_) for call in range(per_class) for class_ in classes], concurrency, stop)
    sentences = {class_: [found[call, class_] for call in range(per_class)] for class_ in classes}
    asked = {"temperature": float(temperature), "per_class": per_class, "batch_classes": batch}
    provenance = _provenance(chat, rounds) | asked | {"description": description}
    header = _header(header.name, classes, **settings, provenance=provenance)
    path = write_bank(out, header, dalda_rows(header, sentences))
    say(f"{len(found)} sentences from {rounds.summary()}")
    return path


def llm_messages(classes: Sequence[str], *, description: str, batch_classes: int | None = None) -> list[Messages]:
    """Return what one call of `write_llm_bank` asks, one list of messages for each request; nothing is asked.

    Raises:
        BankError: an argument is bad.
    """
    batch = MOST_CLASSES if batch_classes is None else batch_classes
    _check(description, batch_classes=batch)
    _header("bank", classes)
    ClassNames(classes)
    return [messages_for(description, part) for part in cut(classes, batch)]


def open_chat(
    model: str, *, base_url: str | None = None, key_env: str = KEY_ENV, patience: Patience | None = None
) -> Chat:
    """Return the model to ask: a local folder when `model` is one and no address is given, else an endpoint.

    Raises:
        ChatError: model, address or key cannot be used.
        ModelError: the folder holds no model.
    """
    folder = local_folder(model, base_url=base_url)
    if folder is not None:
        return LocalChat(folder)
    return Endpoint(model, base_url or OPENAI_URL, key_env=key_env, patience=patience)


def _check(description: str, temperature: float = 1.0, **counts: int) -> None:
    """Refuse arguments that no model should be asked with."""
    problems = []
    if not description.strip():
        problems.append("description: got nothing, allowed: a few sentences on the data set's pictures")
    problems += number_problems(temperature, **counts)
    if problems:
        raise BankError(problems)


def _header(name: str, classes: Sequence[str], **settings: Any) -> Header:
    try:
        return dalda_header(name, classes, **settings)
    except FieldErrors as error:
        raise BankError([str(problem) for problem in error.problems]) from None


def _provenance(chat: Chat, rounds: Rounds) -> dict[str, Any]:
    """Return where the sentences come from; the date is the last answer's, so that a rerun writes the same bytes."""
    origin = {key: value for key, value in chat.identity.items() if key != "base_url"}
    date = max(result.answer.date for result in rounds.results)
    return {"kind": "llm", **origin, "date": date, "instruction_sha256": sha256_json(INSTRUCTION), **rounds.tokens()}
