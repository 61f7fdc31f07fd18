"""One seed of one arm: choose the images, train a network, test it."""

from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from fastgen.errors import FastgenError
from fastgen.train.fit import fit
from fastgen.train.images import Images
from fastgen.train.loss import Targets
from fastgen.train.metrics import Accuracy, accuracy, resampled_accuracy
from fastgen.train.network import learnt_state, load_learnt
from fastgen.train.predict import predict
from fastgen.train.recipe import Recipe
from fastgen.train.sampling import Draws, Split, make_draws, make_mixer, split_images, streams


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Images to test or to choose with: `rows` of `images`, and the class of each, int64 (T,)."""

    images: Images
    labels: np.ndarray
    rows: np.ndarray

    def without(self, rows: np.ndarray) -> "Labelled":
        """The rest, if the images at these places are taken out."""
        rest = np.setdiff1d(np.arange(len(self.rows)), rows)
        return self.only(rest)

    def only(self, places: np.ndarray) -> "Labelled":
        """The images at these places."""
        return Labelled(images=self.images, labels=self.labels[places], rows=self.rows[places])


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Everything the seeds share. R real images come first, S synthetic ones (perhaps none) after them.

    Attributes:
        classes: names, in label order.
        images: all R + S.
        targets: of all of them.
        parents: real image each synthetic image was made of, int64 (S,), -1 for none.
        test: test images; None holds out half of the real ones.
        recipe: how a network is trained.
        shots: real training images per class, for all or for each; None for all images.
        validation: validation images, or None.
        validation_per_class: or how many per class are taken from the real images that are not trained on.
        validation_from_test: whether those are taken from the test images instead.
    """

    classes: tuple[str, ...]
    images: Images
    targets: Targets
    parents: np.ndarray
    test: Labelled | None
    recipe: Recipe
    shots: int | tuple[int, ...] | None = None
    validation: Labelled | None = None
    validation_per_class: int = 0
    validation_from_test: bool = False

    @property
    def n_real(self) -> int:
        """R, the number of real images."""
        return len(self.targets.labels) - len(self.parents)

    @property
    def select(self) -> str:
        """What the recipe's "auto" stands for here."""
        has = self.validation is not None or self.validation_per_class > 0
        return ("best_on_val" if has else "last") if self.recipe.select == "auto" else self.recipe.select


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trained network.

    Attributes:
        seed: its seed.
        state: what was learnt, by the network's own names; of the selected step (best_on_eval: of the last).
        accuracy: on the clean test images, at the selected step (best_on_eval: at the last).
        loss: mean training loss of the last tenth of the steps.
        train_images: number of real images it could draw.
        test_images: number of test images.
        synthetic_share: share of the draws that were synthetic, 0 to 1.
        step: the selected step.
        steps: number of steps trained.
        counts: real training images of each class.
        last: accuracy on the test images at the last step, where another was selected.
        validation: accuracy on the validation images at the selected step.
        history: step and accuracy of every evaluation that `select` asked for: on validation images, or on
            the test images for best_on_eval.
    """

    seed: int
    state: dict[str, Tensor]
    accuracy: Accuracy
    loss: float
    train_images: int
    test_images: int
    synthetic_share: float
    step: int
    steps: int
    counts: tuple[int, ...]
    last: Accuracy | None = None
    validation: Accuracy | None = None
    history: list[tuple[int, Accuracy]] = field(default_factory=list)


def run_trial(problem: Problem, seed: int, *, arm: str, checkpoint: Path | None = None) -> Trial:
    """Trains and tests one network.

    Everything random comes from the seed, and nothing of it depends on the arm but the synthetic images
    themselves, so that the arms of a seed are comparable pairwise.

    Args:
        problem: data and recipe.
        seed: of split, network and draws.
        arm: `sampling.REAL`, BOTH or SYNTHETIC.
        checkpoint: file of the training's progress, or None.

    Returns:
        the trained network and its test accuracy.

    Raises:
        FastgenError: if a class has too few images.
        DataError: if training diverges, or an arm has no images.
        Interrupted: if a stop signal came in.
    """
    split_rng, *draw_rngs, _ = streams(seed)
    split, test, validation = _split(problem, split_rng)
    labels, recipe, n = problem.targets.labels, problem.recipe, problem.n_real
    mixer = make_mixer(
        recipe.mix, split.train, labels[:n],
        parents=problem.parents, synthetic_labels=labels[n:], probability=recipe.synthetic_probability,
    )  # fmt: skip
    draws = make_draws(mixer, recipe, draw_rngs, arm=arm)
    judge = {"last": None, "best_on_val": validation, "best_on_eval": test}[problem.select]
    resampling = count()

    def measure(network: nn.Module, on: Labelled) -> Accuracy:
        found = predict(network, on.images, on.rows)
        if recipe.eval == "full":
            return accuracy(on.labels, found, len(problem.classes))
        rng = np.random.default_rng((seed, 6400, next(resampling)))
        return resampled_accuracy(on.labels, found, len(problem.classes), rng)

    fitted = fit(
        problem.images, problem.targets, draws, recipe,
        classes=problem.classes, seed=seed, keep_best=problem.select == "best_on_val", checkpoint=checkpoint,
        evaluate=None if judge is None else lambda network: measure(network, judge),
    )  # fmt: skip
    network, steps = fitted.network, len(draws.batches)
    last = measure(network, test) if problem.select != "best_on_eval" else fitted.history[-1][1]
    chosen, step = last, steps
    if fitted.best is not None:
        state, step = fitted.best
        load_learnt(network, state)
        chosen = measure(network, test)
    return Trial(
        seed=seed, state=learnt_state(network), accuracy=chosen, loss=fitted.loss,
        train_images=len(split.train), test_images=len(test.rows),
        synthetic_share=_share(draws), step=step, steps=steps,
        counts=tuple(np.bincount(labels[split.train], minlength=len(problem.classes)).tolist()),
        last=last if fitted.best is not None else None,
        validation=dict(fitted.history)[step] if fitted.best is not None else None,
        history=fitted.history,
    )  # fmt: skip


def _share(draws: Draws) -> float:
    return float((draws.rows >= draws.n_real).mean())


def _split(problem: Problem, rng: np.random.Generator) -> tuple[Split, Labelled, Labelled | None]:
    """Training images, test images and validation images of a seed; no image is in two of them."""
    labels = problem.targets.labels[: problem.n_real]
    preferred = np.zeros(problem.n_real, bool)
    preferred[problem.parents[problem.parents >= 0]] = True
    from_train = 0 if problem.validation_from_test else problem.validation_per_class
    split = split_images(
        labels, preferred, rng,
        classes=problem.classes, shots=problem.shots, hold_out=problem.test is None, validation=from_train,
    )  # fmt: skip
    own = Labelled(images=problem.images, labels=labels, rows=np.arange(problem.n_real))
    test = problem.test or own.only(split.held_out)
    validation = problem.validation
    if from_train:
        validation = own.only(split.validation)
    elif problem.validation_per_class:
        taken = _take(test.labels, problem.validation_per_class, rng, problem.classes)
        validation, test = test.only(taken), test.without(taken)
    return split, test, validation


def _take(labels: np.ndarray, n: int, rng: np.random.Generator, classes: tuple[str, ...]) -> np.ndarray:
    """Places of n test images of every class."""
    taken = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) <= n:
            raise FastgenError(
                f"class {classes[label]!r} has {len(members)} test image(s); to validate with {n} of them it needs "
                f"at least {n + 1}"
            )
        taken.append(members[:n])
    return np.sort(np.concatenate(taken))
