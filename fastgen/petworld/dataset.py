"""Exports PetWorld as an image folder: the function behind `fastgen petworld OUT`.

    OUT/train/<class>/00000.png, OUT/test/<class>/00000.png   the pictures
    OUT/metadata.jsonl     a line per picture: `file_name`, every attribute of its Scene, and `captions`
    OUT/train/metadata.jsonl, OUT/test/metadata.jsonl   the same lines, with names relative to that folder:
                           where Hugging Face's loader looks for them when a data set has splits
    OUT/petworld.json      arguments, version and counts; written last

Every class has one endless stream of scenes for training and another for testing; both depend on the seed and
the class alone. A split decides how much of the training stream is taken, and where its animals stand. So
few-shot is the beginning of balanced, confounded is balanced with other backgrounds and poses, and the test
set is the same for all.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fastgen import __version__
from fastgen.errors import FastgenError, OutputError
from fastgen.files import atomic_directory, atomic_write_text, write_jsonl
from fastgen.petworld.attributes import BACKGROUNDS, POSES, Scene
from fastgen.petworld.captions import captions
from fastgen.petworld.render import render, sample_scene
from fastgen.petworld.request import Request, check

Counts = dict[str, dict[str, int]]
"""Pictures per class, for "train" and for "test"."""

FORMAT = 1
"""Version of the folder in petworld.json; it grows when its files or the pictures themselves change."""

CAPTIONS = 5
"""Captions per picture."""

_SUBSETS = ("train", "test")


class Picture(NamedTuple):
    """One file to be written: "train" or "test", what it shows, and its name `<class>/<number>.png`."""

    subset: str
    scene: Scene
    name: str


def export(
    out: str | Path,
    *,
    classes: str | Sequence[str] = "oxford",
    split: str = "balanced",
    per_class: int = 20,
    shots: int = 1,
    imbalance: float = 100.0,
    confounding: float = 0.9,
    test_per_class: int = 10,
    styles: Sequence[str] = ("photo",),
    realism: tuple[float, float] = (0.4, 0.8),
    seed: int = 0,
    size: int = 64,
    say: Callable[[str], None] = print,
) -> Path:
    """Writes PetWorld pictures as an image folder with ground truth and captions, whole or not at all.

    The pictures stand for *real* ones. `realism` is the domain gap between them and generated ones: strength
    of blur, noise, tint, coat texture, close crops, objects in front of the animal. The embedded generator
    was trained mostly below 0.15, so at 0.4 to 0.8 what it makes helps a classifier without being real data,
    as with a real text-to-image model; (0, 0) removes the gap, (1, 1) makes it as wide as it gets.

    Args:
        out: folder to make. If it holds the same export already, nothing is done.
        classes: "oxford" (37), "novel" (12 that the embedded model does not know) or names of breeds.
        split: training set: "balanced", "few-shot", "long-tail" (numbers fall exponentially, to 1 at least,
            in an order drawn by the seed) or "confounded" (most animals of a class are in a background and
            pose of its own, the others in any other). The test set is always balanced and unconfounded.
        per_class: training pictures of each class, in "long-tail" of the most frequent one. Not "few-shot".
        shots: training pictures of each class in "few-shot".
        imbalance: the most over the fewest training pictures of a class in "long-tail", >= 1.
        confounding: share of pictures in the class's own background and pose in "confounded", 0 to 1.
        test_per_class: test pictures of each class.
        styles: values of `STYLES`, drawn uniformly; so are all other attributes.
        realism: lowest and highest `Scene.realism`, 0 to 1, in training and test pictures alike.
        seed, size: seed of everything, >= 0, and side of the pictures in pixels, 16 to 1024.
        say: gets a line when drawing starts and ends, or when there is nothing to do.

    Returns:
        `out` as a path.

    Raises:
        FastgenError: arguments are wrong, or `out` holds an incomplete export or one with other arguments.
        OutputError: something else is in `out`, or it cannot be written.
    """
    folder = Path(out)
    request = check(
        classes=classes, split=split, per_class=per_class, shots=shots, imbalance=imbalance, seed=seed,
        confounding=confounding, test_per_class=test_per_class, styles=styles, realism=realism, size=size,
    )  # fmt: skip
    counts = {"train": training_counts(request), "test": dict.fromkeys(request.classes, test_per_class)}
    if _is_done(folder, request, counts):
        say(f"{folder} is up to date: it was made with the same arguments; nothing to do")
    else:
        say(f"drawing {sum(sum(of.values()) for of in counts.values())} pictures into {folder}")
        with atomic_directory(folder, replace=folder.is_dir()) as tmp:
            _write(tmp, request, counts)
        say(f"{folder} is ready")
    return folder


def training_counts(request: Request) -> dict[str, int]:
    """Number of training pictures of every class, in the order of the classes."""
    if request.split == "few-shot":
        return dict.fromkeys(request.classes, request.shots)
    if request.split != "long-tail":
        return dict.fromkeys(request.classes, request.per_class)
    ranks = np.random.default_rng(_stream(request.seed, "long-tail")).permutation(len(request.classes))
    steps = max(1, len(request.classes) - 1)
    return {
        name: max(1, round(request.per_class * request.imbalance ** (-int(rank) / steps)))
        for name, rank in zip(request.classes, ranks, strict=True)
    }


def own_places(request: Request) -> dict[str, tuple[str, str]]:
    """The background and pose of each class in a confounded split; every class has a pair of its own.

    Ten classes have ten backgrounds; only from the eleventh on a background comes again, with another pose.
    """
    rng = np.random.default_rng(_stream(request.seed, "places"))
    backgrounds, poses = rng.permutation(BACKGROUNDS).tolist(), rng.permutation(POSES).tolist()
    n, m = len(backgrounds), len(poses)
    return {name: (backgrounds[i % n], poses[(i + i // n) % m]) for i, name in enumerate(request.classes)}


def pictures(request: Request, counts: Counts) -> Iterator[Picture]:
    """Yields every picture of the data set, class by class, first those to train on."""
    places = own_places(request) if request.split == "confounded" else {}
    for subset in _SUBSETS:
        for name, count in counts[subset].items():
            stream = _stream(request.seed, subset, name)
            for index in range(count):
                scene = sample_scene(
                    stream, index, breeds=(name,), styles=request.styles, realism=request.realism
                )
                if subset == "train" and places:
                    scene = _confound(scene, places[name], request.confounding, (stream, index, 1))
                yield Picture(subset, scene, f"{name}/{index:05d}.png")


def _confound(scene: Scene, own: tuple[str, str], probability: float, seed: tuple[int, ...]) -> Scene:
    """Moves the animal to the place of its class, or else to one of the other 49."""
    rng = np.random.default_rng(seed)
    others = [(b, p) for b in BACKGROUNDS for p in POSES if (b, p) != own]
    background, pose = own if rng.random() < probability else others[int(rng.integers(len(others)))]
    return replace(scene, background=background, pose=pose)


def _stream(seed: int, *purpose: str) -> int:
    """The seed of one purpose, 0 to 2**64 - 1; different purposes have unrelated ones."""
    text = "\0".join(("petworld", str(seed), *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _write(folder: Path, request: Request, counts: Counts) -> None:
    """Fills an empty folder."""
    lines: dict[str, list[dict[str, Any]]] = {subset: [] for subset in _SUBSETS}
    for subset, scene, name in pictures(request, counts):
        path = folder / subset / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(render(scene, request.size)).save(path, "PNG")
        said = captions(scene, _stream(request.seed, "captions", subset, name), CAPTIONS)
        lines[subset].append({"file_name": name, **asdict(scene), "captions": said})
    for subset in _SUBSETS:
        write_jsonl(folder / subset / "metadata.jsonl", lines[subset])
    everything = ({**line, "file_name": f"{s}/{line['file_name']}"} for s in _SUBSETS for line in lines[s])
    write_jsonl(folder / "metadata.jsonl", everything)
    about: dict[str, Any] = {
        "fastgen_petworld": FORMAT,
        "fastgen_version": __version__,
        "arguments": request.recorded(),
        "counts": counts,
    }
    if request.split == "confounded":
        places = own_places(request)
        about["places"] = {name: {"background": b, "pose": p} for name, (b, p) in places.items()}
    atomic_write_text(folder / "petworld.json", json.dumps(about, indent=2) + "\n")


def _is_done(folder: Path, request: Request, counts: Counts) -> bool:
    """Tells whether the folder holds what is asked for; raises if it holds anything else."""
    path = folder / "petworld.json"
    try:
        if not path.is_file():
            _refuse_other_things(folder)
            return False
    except OSError as error:
        raise OutputError(f"{folder}: cannot be read ({error.strerror}); choose another name") from error
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        known = {"format": about["fastgen_petworld"], **about["arguments"]}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise FastgenError(f"{path}: cannot be read ({error!r}); remove {folder} and try again") from None
    asked = {"format": FORMAT, **request.recorded()}
    differing = [
        f"{name}: there {_shown(known, name)}, asked for {_shown(asked, name)}"
        for name in dict.fromkeys((*asked, *known))
        if _shown(known, name) != _shown(asked, name)
    ]
    if differing:
        raise FastgenError(
            f"{folder}: was made with other arguments ({'; '.join(differing)}); give the same arguments, "
            "choose another folder, or remove this one"
        )
    _check_complete(folder, counts)
    return True


def _refuse_other_things(folder: Path) -> None:
    """Raises OutputError if the name is taken by anything but an empty folder."""
    if not folder.exists() and not folder.is_symlink():
        return
    replaceable = folder.is_dir() and not folder.is_symlink() and folder.name not in ("", "..")
    if not replaceable or any(folder.iterdir()):
        raise OutputError(f"{folder}: exists, and is no export of PetWorld; choose another name or remove it")


def _check_complete(folder: Path, counts: Counts) -> None:
    for subset, of_class in counts.items():
        for name, count in of_class.items():
            place = folder / subset / name
            there = sum(1 for _ in place.glob("*.png"))
            if there != count:
                raise FastgenError(
                    f"{place}: holds {there} pictures, {count} were written; remove {folder} and try again"
                )


def _shown(arguments: dict[str, Any], name: str) -> str:
    return json.dumps(arguments[name]) if name in arguments else "nothing"
