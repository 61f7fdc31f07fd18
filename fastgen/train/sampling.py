"""Which images a seed trains on, and which image every training draw sees. Pure numpy."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fastgen.errors import DataError, FastgenError
from fastgen.train.recipe import Recipe

MIXES = ("parent", "class_uniform", "pool_uniform", "replicate")
"""How synthetic images get into a batch.

The first three draw a real image and put a synthetic one in its place with a probability. `parent`: uniformly
among the children of that real image (DALDA). `class_uniform`: uniformly among the usable synthetic images of
its class. `pool_uniform`: uniformly among all usable synthetic images. `replicate`: no replacement, but one
shuffled pool of all usable synthetic images and several copies of the real ones (DataDream, BOB).
"""

REAL, BOTH, SYNTHETIC = "real", "real+synthetic", "synthetic"
"""Names of the arms, in metrics.json and wherever weights are kept."""


def streams(seed: int) -> list[np.random.Generator]:
    """Five independent generators of a seed: split, real index, coin, child, view.

    Because each has its own stream, the arm without synthetic images draws the same real images as the arm
    with them: the two arms are paired.
    """
    return [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(5)]


@dataclass(frozen=True, slots=True)
class Split:
    """Indices of real images, int64: `train` (T,), `validation` (V,) and, where a part is held out, `held_out` (H,)."""

    train: np.ndarray
    held_out: np.ndarray
    validation: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


def split_images(
    labels: np.ndarray,
    preferred: np.ndarray,
    rng: np.random.Generator,
    *,
    classes: Sequence[str],
    shots: int | Sequence[int] | None,
    hold_out: bool,
    validation: int = 0,
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
        shots: training images per class, for all classes or for each, or None for all images.
        hold_out: whether half of each class is kept for testing.
        validation: images per class that are neither trained on nor tested with, but chosen by.

    Returns:
        the split.

    Raises:
        FastgenError: if a class has too few images.
    """
    train, held_out, kept = [], [], []
    for label, name in enumerate(classes):
        members = rng.permutation(np.flatnonzero(labels == label))
        members = members[np.argsort(~preferred[members], kind="stable")]
        first, second = np.array_split(members, 2) if hold_out else (members, members[:0])
        if hold_out and len(second) == 0:
            raise FastgenError(
                f"class {name!r} has {len(members)} real image(s); without a test folder half of each class "
                "is held out, so every class needs at least 2. Add images, or give a test folder (--test)."
            )
        wanted = shots[label] if isinstance(shots, Sequence) else shots
        if validation and len(first) < (wanted or 1) + validation:
            raise FastgenError(
                f"class {name!r} has {len(first)} image(s), too few for {wanted or 1} to train on and {validation} to "
                "validate with; use fewer (--val), a folder (--val DIR) or test images (--val test:N)."
            )
        if wanted is not None and len(first) < wanted:
            raise FastgenError(
                f"class {name!r} has {len(first)} image(s) to train on, but shots is {wanted}; use at most "
                f"{len(first)}, or add images."
            )
        end = len(first) - validation if wanted is None else wanted
        train.append(first[:end])
        kept.append(first[end : end + validation])
        held_out.append(second)
    return Split(*(np.concatenate(part).astype(np.int64) for part in (train, held_out, kept)))


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


@dataclass(frozen=True, slots=True)
class Draws:
    """Which image every draw of a training shows, and how draws make batches.

    Attributes:
        rows: image of every draw, int64 (n,): real ones in 0..R-1, synthetic ones from R on.
        batches: numbers of the draws of every batch, each int64.
        n_real: R.
        epoch: steps per epoch.
        eval_every: steps between evaluations.
    """

    rows: np.ndarray
    batches: list[np.ndarray]
    n_real: int
    epoch: int
    eval_every: int

    @property
    def both(self) -> bool:
        """Whether there are real and synthetic images."""
        synthetic = self.rows >= self.n_real
        return bool(synthetic.any() and not synthetic.all())


def make_draws(mixer: Mixer, recipe: Recipe, rngs: Sequence[np.random.Generator], *, arm: str) -> Draws:
    """Draws the images of a whole training.

    With mix `replicate` every epoch is a permutation of the pool; the arm with real images alone shows as many
    copies of them as the arm with both, so that the two differ by the synthetic images and nothing else. With
    the other mixes an epoch is as many draws as there are real images.

    Args:
        mixer: of all usable images.
        recipe: mix, copies, batch, steps or epochs.
        rngs: three generators: real index (or permutation), coin (or copies), child.
        arm: REAL, BOTH or SYNTHETIC.

    Raises:
        DataError: if the arm has no images.
    """
    n_real = len(mixer.group)
    if arm == SYNTHETIC and not len(mixer.children):
        raise DataError("there is no synthetic image that this seed may train on; give --mix class_uniform")
    if recipe.mix != "replicate":
        used = only_synthetic(mixer) if arm == SYNTHETIC else mixer
        epoch = -(-len(used.train) // recipe.batch)
        steps = recipe.steps or (recipe.epochs or 1) * epoch
        probability = {REAL: 0.0, BOTH: mixer.probability, SYNTHETIC: 1.0}[arm]
        rows = replace(used, probability=probability).draw(steps * recipe.batch, rngs)
        batches = np.split(np.arange(len(rows)), steps)
    else:
        pool = _pool(mixer, recipe, rngs[1], arm=arm)
        epoch = -(-len(pool) // recipe.batch)
        epochs = recipe.epochs or -(-(recipe.steps or epoch) // epoch)
        rows = np.concatenate([rngs[0].permutation(pool) for _ in range(epochs)])
        starts = [e * len(pool) + b * recipe.batch for e in range(epochs) for b in range(epoch)]
        batches = np.split(np.arange(len(rows)), starts[1:])[: recipe.steps]
    every = recipe.eval_every or (epoch if recipe.steps is None else DALDA_EPOCH)
    return Draws(rows, batches, n_real, epoch if recipe.steps is None else every, every)


DALDA_EPOCH = 200
"""Steps that DALDA's code calls an epoch."""


def only_synthetic(mixer: Mixer) -> Mixer:
    """The same mixer over the real images that have something to be replaced by."""
    return replace(mixer, train=mixer.train[mixer.count[mixer.group[mixer.train]] > 0])


def _pool(mixer: Mixer, recipe: Recipe, rng: np.random.Generator, *, arm: str) -> np.ndarray:
    """All images of an epoch in a fixed order; real ones several times."""
    synthetic = len(mixer.group) + mixer.children
    if arm == SYNTHETIC:
        return synthetic
    n, wanted = len(mixer.train), len(synthetic)
    if isinstance(recipe.real_repeat, int):
        real = np.tile(mixer.train, recipe.real_repeat)
    elif recipe.real_repeat == "exact" and wanted > n:
        real = np.concatenate([np.tile(mixer.train, wanted // n), rng.permutation(mixer.train)[: wanted % n]])
    else:
        real = np.tile(mixer.train, max(1, wanted // n))
    return real if arm == REAL else np.concatenate([real, synthetic])
