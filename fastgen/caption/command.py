"""`fastgen caption`: background and pose of every real image, into a JSONL file that `fastgen bank bob` reads."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fastgen.bank.answer_cache import AnswerCache
from fastgen.bank.asking import number_problems
from fastgen.bank.captions import ATTRIBUTES, read_captions
from fastgen.bank.class_names import ClassNames, folder_class
from fastgen.bank.endpoint import KEY_ENV, Patience
from fastgen.caption.asking import Interview, Place
from fastgen.caption.questions import MOST_WORDS, clean, cut, fault_of, question
from fastgen.caption.vision import Pictures, open_vision
from fastgen.errors import BankError
from fastgen.files import atomic_write_text, sha256_file, write_jsonl
from fastgen.header_parts import PETWORLD
from fastgen.job import StopSignal
from fastgen.plan.folders import list_folders, list_images

VERSION = 1
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Real images to caption: relative path -> file, sorted by class and name; and the names of the classes."""

    path: Path
    files: dict[str, Path]
    classes: tuple[str, ...]

    @cached_property
    def _hashes(self) -> dict[str, str]:
        return {name: sha256_file(file) for name, file in self.files.items()}

    def sha256(self, name: str) -> str:
        """Hash of an image's file."""
        return self._hashes[name]


def caption(
    folder: str | Path,
    *,
    model: str | None = None,
    captioner: str | Path | None = None,
    out: str | Path | None = None,
    attributes: Sequence[str] = ATTRIBUTES,
    descriptor: str = "object",
    base_url: str | None = None,
    key_env: str = KEY_ENV,
    side: int = 1024,
    temperature: float = 0.0,
    concurrency: int = 4,
    cache: str | Path | None = None,
    skip: bool = False,
    patience: Patience | None = None,
    say: Say = print,
) -> Path:
    """Write the captions of a folder of images.

    A vision-language model is asked about each attribute of each image, without being told the class. Answers that
    name a class, or are empty or too long, are asked for again. Every answer is kept in `cache`: a rerun asks nothing
    and writes the same bytes, an interrupted one goes on.

    Args:
        folder: one folder of images per class; training images only.
        model: name at the endpoint; or, without `base_url`, the folder of a local transformers model.
        captioner: instead of a model: "petworld" takes the ground truth of an export of `fastgen petworld`; a JSONL
            file is taken over after the same checks.
        out: the JSONL file; None takes `<folder>.captions.jsonl`, beside the folder. `<out>.about.json` says where
            the captions come from.
        attributes: names of what is asked for.
        descriptor: noun for whatever the data set shows, such as "aircraft", which stands for the class in questions.
        base_url: of an OpenAI-compatible API; None takes OpenAI's.
        key_env: environment variable that holds the key.
        side: longer side in pixels that pictures are shrunk to before they are sent.
        temperature: of the first question about a picture, 0..2.
        concurrency: requests under way at once.
        cache: folder of answers; None takes `<out>.cache`.
        skip: leave out images without a usable answer, instead of ending with an error.
        patience: tries and timeouts at an endpoint.
        say: is told the progress.

    Returns:
        The path of the JSONL file.

    Raises:
        BankError: an argument is bad, or images lack usable captions.
        ChatError, ModelError: the model cannot be asked.
        ReferenceImageError: the folder or an image cannot be read.
        Interrupted: a signal stopped it; the answers are kept.
        OutputError: a file cannot be written.
    """
    attributes = tuple(attributes)
    _check(attributes, descriptor, temperature, side=side, concurrency=concurrency)
    if (model is None) == (captioner is None):
        raise BankError(["model and captioner: got both or neither, allowed: one of them"])
    found = _find(Path(folder))
    names = ClassNames(found.classes)
    out = Path(out) if out is not None else found.path.with_name(f"{found.path.name}.captions.jsonl")
    if captioner is not None:
        values, about = _taken_over(captioner, found, attributes, names)
    else:
        assert model is not None
        pictures = Pictures({found.sha256(name): file for name, file in found.files.items()})
        interview = Interview(
            chat=open_vision(model, pictures, base_url=base_url, key_env=key_env, patience=patience),
            cache=AnswerCache(cache if cache is not None else f"{out}.cache"),
            names=names,
            descriptor=descriptor,
            side=side,
            temperature=float(temperature),
            say=say,
        )
        values = _answers(interview, found, attributes, concurrency)
        about = _asked(interview, attributes, side)
    lacking = [name for name, value in values.items() if len(value) < len(attributes)]
    if lacking and not skip:
        raise BankError(_lacking(lacking, values, attributes))
    lines = [{"file_name": name, **values[name]} for name in found.files if name in values and name not in lacking]
    if not lines:
        raise BankError([f"{folder}: no image has a usable caption; try another model or --descriptor"])
    write_jsonl(out, lines)
    record = {"fastgen_captions": VERSION, "images": len(lines), "skipped": lacking, "attributes": list(attributes)}
    atomic_write_text(Path(f"{out}.about.json"), json.dumps(record | about, indent=1, ensure_ascii=False) + "\n")
    say(f"{len(lines)} of {len(found.files)} images have captions")
    return out


def _answers(
    interview: Interview, found: Folder, attributes: Sequence[str], concurrency: int
) -> dict[str, dict[str, str]]:
    """Values by image, from the model; what has no usable answer is left out."""
    places = {
        name: {attribute: Place(found.sha256(name), attribute) for attribute in attributes} for name in found.files
    }
    asked = list(dict.fromkeys(place for of_image in places.values() for place in of_image.values()))
    with StopSignal() as stop:
        answers = interview.run(asked, concurrency, stop)
    return {
        name: {attribute: answers[place] for attribute, place in of_image.items() if place in answers}
        for name, of_image in places.items()
    }


def _check(attributes: Sequence[str], descriptor: str, temperature: float, **counts: int) -> None:
    problems = []
    if not attributes or len(set(attributes)) < len(attributes) or not all(name.isidentifier() for name in attributes):
        problems.append(f"attributes: got {list(attributes)}, allowed: different names such as background and pose")
    if set(attributes) & {"file_name", "class", "descriptor"}:
        problems.append(f"attributes: got {list(attributes)}, allowed: names other than file_name, class, descriptor")
    if not descriptor.strip():
        problems.append("descriptor: got nothing, allowed: a noun such as aircraft")
    problems += number_problems(temperature, **counts)
    if problems:
        raise BankError(problems)


def _find(path: Path) -> Folder:
    """List the images of the class folders."""
    if not path.is_dir():
        raise BankError([f"{path}: no such folder; give one with a folder of images per class"])
    folders = list_folders(path)
    if {"train", "test"} <= set(folders):
        raise BankError([f"{path}: holds train and test; give {path / 'train'}: captions are of training images"])
    base = path.resolve()
    images = {name: list_images(base / name, base) for name in folders}
    files = {file.relative_to(base).as_posix(): file for found in images.values() for file in found}
    if not files:
        raise BankError([f"{path}: no class folder with images in it; expected {path}/<class>/<image>"])
    return Folder(path=base, files=files, classes=tuple(folder_class(name) for name in folders if images[name]))


def _taken_over(
    captioner: str | Path, found: Folder, attributes: Sequence[str], names: ClassNames
) -> tuple[dict[str, dict[str, str]], dict[str, Any]]:
    """Values by image from a file, checked as answers are; and what to record."""
    path = Path(captioner)
    if str(captioner) == PETWORLD:
        path = found.path / "metadata.jsonl"
        if not (found.path.parent / "petworld.json").is_file():
            raise BankError([f"{found.path}: is no export of fastgen petworld; give its folder train"])
    values: dict[str, dict[str, str]] = {name: {} for name in found.files}
    problems = []
    for line in read_captions(path, attributes=attributes):
        if line.file not in values:
            problems.append(f"{path}: file_name: got {line.file!r}, allowed: an image in {found.path}")
            continue
        for attribute, text in line.attributes.items():
            value = clean(text, attribute, "object")
            fault = fault_of(value, names)
            if fault in ("empty", "class"):
                said = f"names {', '.join(names.named_in(value))}" if fault == "class" else "has no words"
                problems.append(f"{path}: {line.file}: {attribute}: got {text!r}, which {said}; write it anew")
                continue
            values[line.file][attribute] = cut(value) if fault == "long" else value
    if problems:
        raise BankError(problems)
    kind = PETWORLD if str(captioner) == PETWORLD else "file"
    return values, {"captioner": kind, "file": path.name, "sha256": sha256_file(path)}


def _asked(interview: Interview, attributes: Sequence[str], side: int) -> dict[str, Any]:
    """What to record of the questions; the date is the last answer's, so that a rerun writes the same bytes."""
    answers = [result.answer for result in interview.results]
    identity = {key: value for key, value in interview.chat.identity.items() if key != "base_url"}
    return {
        "captioner": "model",
        **identity,
        "date": max(answer.date for answer in answers),
        "descriptor": interview.descriptor,
        "questions": {name: question(name, interview.descriptor) for name in attributes},
        "temperature": interview.temperature,
        "side": side,
        "answers": len(answers),
        "prompt_tokens": sum(answer.prompt_tokens or 0 for answer in answers),
        "completion_tokens": sum(answer.completion_tokens or 0 for answer in answers),
        "shortened": interview.shortened,
    }


def _lacking(
    lacking: Sequence[str], values: Mapping[str, Mapping[str, str]], attributes: Sequence[str]
) -> list[str]:
    first = (
        f"{len(lacking)} images have no usable caption: every answer was empty, named a class or had more than "
        f"{MOST_WORDS} words. The answers are kept; try another model or --descriptor, or leave these out (--skip):"
    )
    return [first, *(f"{name}: {', '.join(a for a in attributes if a not in values[name])}" for name in lacking)]
