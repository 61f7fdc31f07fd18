"""Which images a seed trains on, and which image every training draw sees. Pure numpy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastgen.errors import FastgenError

MIXES = ("parent", "class_uniform", "pool_uniform")
"""How a synthetic image is chosen for a drawn real one.

`parent`: uniformly among the children of that real image (DALDA). `class_uniform`: uniformly among the usable
synthetic images of its class. `pool_uniform`: uniformly among all usable synthetic images.
"""


def streams(seed: int) -> list[np.random.Generator]:
    """Five independent generators of a seed: split, real index, coin, child, view.

    Because each has its own stream, the arm without synthetic images draws the same real images as the arm
    with them: the two arms are paired.
    """
    return [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(5)]


@dataclass(frozen=True, slots=True)
class Split:
    """Indices of real images: `train` (T,) and, where a part is held out, `held_out` (H,); int64."""

    train: np.ndarray
    held_out: np.ndarray


def split_images(
    labels: np.ndarray,
    preferred: np.ndarray,
    rng: np.random.Generator,
    *,
    classes: Sequence[str],
    shots: int | None,
    hold_out: bool,
) -> Split:
    """Chooses the training images of one seed, class by class with one generator.

    The images of a class are permuted, those with synthetic children first, so that a few-shot choice and the
    training half contain the images that references were made of. With `hold_out` the second half of each
    class becomes the test set, as in DALDA's splits.

    Args:
        labels: class of every real image, integers (N,).
        preferred: whether an image has synthetic children, bool (N,).
        rng: generator of this seed.
        classes: class names, for the error.
        shots: training images per class, or None for all.
        hold_out: whether half of each class is kept for testing.

    Returns:
        the split.

    Raises:
        FastgenError: if a class has too few images.
    """
    train, held_out = [], []
    for label, name in enumerate(classes):
        members = rng.permutation(np.flatnonzero(labels == label))
        members = members[np.argsort(~preferred[members], kind="stable")]
        first, second = np.array_split(members, 2) if hold_out else (members, members[:0])
        if hold_out and len(second) == 0:
            raise FastgenError(
                f"class {name!r} has {len(members)} real image(s); without a test folder half of each class "
                "is held out, so every class needs at least 2. Add images, or give a test folder (--test)."
            )
        if shots is not None and len(first) < shots:
            raise FastgenError(
                f"class {name!r} has {len(first)} image(s) to train on, but shots is {shots}; use at most "
                f"{len(first)}, or add images."
            )
        train.append(first[:shots])
        held_out.append(second)
    return Split(np.concatenate(train).astype(np.int64), np.concatenate(held_out).astype(np.int64))


@dataclass(frozen=True, slots=True)
class Mixer:
    """Draws training images: real ones, of which a part is replaced by synthetic ones.

    Real image i has index i in 0..R-1 and synthetic image j has index R + j. Children are kept as one array
    sorted by group, with the first position and the number of each group.

    Attributes:
        train: indices of the real images to draw from, int64 (T,).
        group: group of every real image, int64 (R,).
        children: synthetic indices sorted by group, int64 (S,).
        start: first position of each group in `children`, int64 (G,).
        count: number of children of each group, int64 (G,).
        probability: chance that a draw becomes synthetic where there is a child, 0 to 1.
    """

    train: np.ndarray
    group: np.ndarray
    children: np.ndarray
    start: np.ndarray
    count: np.ndarray
    probability: float

    def draw(self, n: int, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        """Draws n training images, each independently of the others.

        A real index is drawn uniformly with replacement; with `probability` it is replaced by a uniformly
        chosen child of its group. A real image whose group has no child stays as it is.

        Args:
            n: number of draws.
            rngs: three generators: real index, coin, child.

        Returns:
            indices, int64 (n,).
        """
        real_rng, coin_rng, child_rng = rngs
        real = self.train[real_rng.integers(len(self.train), size=n)]
        wanted = coin_rng.random(n) < self.probability
        group = self.group[real]
        count = self.count[group]
        place = self.start[group] + (child_rng.random(n) * count).astype(np.int64)
        replace = wanted & (count > 0)
        drawn = real.copy()
        drawn[replace] = len(self.group) + self.children[place[replace]]
        return drawn


def make_mixer(
    mix: str,
    train: np.ndarray,
    labels: np.ndarray,
    *,
    parents: np.ndarray,
    synthetic_labels: np.ndarray,
    probability: float,
) -> Mixer:
    """Groups the synthetic images as `mix` says.

    A synthetic image whose parent is a real image outside `train` is never used, in no mix: it would carry
    information about a real image that this seed must not see.

    Args:
        mix: one of `MIXES`.
        train: indices of the real training images, int64 (T,).
        labels: class of every real image, int64 (R,).
        parents: real image each synthetic image was made of, int64 (S,), -1 for none.
        synthetic_labels: class of every synthetic image, int64 (S,).
        probability: chance of a synthetic image per draw, 0 to 1.

    Returns:
        the mixer.
    """
    usable = np.isin(parents, train) | (parents < 0)
    if mix == "parent":
        group, of_child = np.arange(len(labels), dtype=np.int64), parents
        usable &= parents >= 0
    elif mix == "class_uniform":
        group, of_child = labels.astype(np.int64), synthetic_labels
    else:
        group, of_child = np.zeros(len(labels), np.int64), np.zeros(len(parents), np.int64)
    chosen = np.flatnonzero(usable)
    chosen = chosen[np.argsort(of_child[chosen], kind="stable")].astype(np.int64)
    n_groups = int(group.max()) + 1
    count = np.bincount(of_child[chosen], minlength=n_groups).astype(np.int64)
    start = np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.int64)
    return Mixer(train, group, chosen, start, count, probability)
