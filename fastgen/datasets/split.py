"""Who trains, who validates and who tests: DALDA's halves, official splits, few shots and long tails."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastgen.datasets.source import Files, Source
from fastgen.errors import FastgenError
from fastgen.files import sha256_file
from fastgen.train.long_tail import exponential_counts

SPLITS = ("halves", "official")


@dataclass(frozen=True, slots=True)
class Split:
    """Pictures of each class, in label order; `twins` are left out, being byte for byte in an earlier part."""

    train: Files
    val: Files
    test: Files
    twins: tuple[Path, ...] = ()

    @property
    def parts(self) -> dict[str, Files]:
        """The three by name, without an empty validation set."""
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {name: part for name, part in named.items() if name != "val" or any(part.values())}


def make_split(
    source: Source,
    split: str,
    *,
    seed: int = 0,
    shots: int | None = None,
    val_per_class: int = 0,
    imbalance: float | None = None,
) -> Split:
    """Divides a data set.

    `halves` is the split of DALDA's code (its card, section 2.7): a generator `default_rng(seed)` permutes class
    after class, `array_split` halves each permutation; the first half is to train on, in its order, and all of the
    second is to test on. Both are halves of all pictures, or where a data set has training and test images (but
    Flowers102, as in DALDA) the first is one of the training images and the second one of the test images, each with a
    generator of its own. `official` takes these images themselves, permuted in the same way.

    Args:
        source: the data set.
        split: one of `SPLITS`.
        seed: of the permutations.
        shots: training pictures per class: the first ones; a class that has fewer gives all. None for all.
        val_per_class: validation pictures per class: of the official validation set, or else the last ones of those
            to train on, so that they are the same for any `shots`; with `imbalance` of those to test on (BOB).
        imbalance: a long tail of the training pictures: `exponential_counts` of what there is to train on.

    Returns:
        the split; no picture is in two parts.

    Raises:
        FastgenError: there is no official split, or a class has too few pictures.
    """
    to_train, to_test = _halves(source, seed) if split == "halves" else _official(source, seed)
    val: Files = {name: [] for name in source.classes}
    if imbalance is not None:
        sizes = np.array([len(to_train[name]) for name in source.classes])
        counts = dict(zip(source.classes, exponential_counts(sizes, imbalance).tolist(), strict=True))
        to_train = {name: files[: counts[name]] for name, files in to_train.items()}
        if val_per_class:
            to_test, val = _give(to_test, val_per_class, "test")
    elif val_per_class and split == "official" and source.val is not None:
        val = _give(_permuted(source.val, source.order, seed), val_per_class, "validation", leave=0)[1]
    elif val_per_class:
        to_train, val = _give(to_train, val_per_class, "training")
    train = {name: to_train[name][:shots] for name in source.classes}
    return _without_twins(train, val, {name: to_test[name] for name in source.classes})


def _permuted(files: Files, order: tuple[str, ...], seed: int) -> Files:
    """Every class in a random order; one generator is consumed class by class."""
    rng = np.random.default_rng(seed)
    return {name: [files[name][i] for i in rng.permutation(len(files[name]))] for name in order}


def _halves(source: Source, seed: int) -> tuple[Files, Files]:
    everything = source.everything if source.pooled else None
    pools = (everything or source.train, everything or source.test or {})
    first, second = (_permuted(pool, source.order, seed) for pool in pools)
    # np.array_split: of an odd number the first half has one more
    return (
        {name: files[: (len(files) + 1) // 2] for name, files in first.items()},
        {name: files[(len(files) + 1) // 2 :] for name, files in second.items()},
    )


def _official(source: Source, seed: int) -> tuple[Files, Files]:
    if source.test is None:
        raise FastgenError(f"{source.folder}: has no official split, no training and test images; give --split halves")
    return _permuted(source.train, source.order, seed), _permuted(source.test, source.order, seed)


def _give(files: Files, count: int, what: str, *, leave: int = 1) -> tuple[Files, Files]:
    """Takes the last `count` pictures of every class; at least `leave` must stay."""
    short = [f"{name!r} has {len(of)}" for name, of in files.items() if len(of) < count + leave]
    if short:
        more = f", and {len(short) - 5} more classes" if len(short) > 5 else ""
        raise FastgenError(
            f"val_per_class is {count}, but of {what} images {', '.join(short[:5])}{more}; give a smaller number"
        )
    return {name: of[:-count] for name, of in files.items()}, {name: of[-count:] for name, of in files.items()}


def _without_twins(train: Files, val: Files, test: Files) -> Split:
    """Leaves out of validation what is also trained on, and of test what is in one of both; only bytes are compared."""
    sizes: dict[int, int] = defaultdict(int)
    parts = {"train": train, "val": val, "test": test}
    for path in (path for part in parts.values() for of_class in part.values() for path in of_class):
        sizes[path.stat().st_size] += 1
    seen: set[str] = set()
    twins: list[Path] = []
    kept: dict[str, Files] = {}
    for name, part in parts.items():
        digests = {p: sha256_file(p) for of in part.values() for p in of if sizes[p.stat().st_size] > 1}
        doubled = {path for path, digest in digests.items() if digest in seen}
        seen |= set(digests.values())
        twins += sorted(doubled)
        kept[name] = {class_: [path for path in of if path not in doubled] for class_, of in part.items()}
    return Split(kept["train"], kept["val"], kept["test"], tuple(twins))
