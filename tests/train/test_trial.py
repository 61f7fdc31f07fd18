"""The head learns what can be learned, and nothing else."""

import numpy as np
import pytest
import torch

from fastgen.errors import DataError, FastgenError
from fastgen.train.head import class_prompts, new_head
from fastgen.train.images import CachedFeatures
from fastgen.train.loss import Targets
from fastgen.train.optimizer import make_optimizer
from fastgen.train.recipe import Recipe
from fastgen.train.recipes import PAPER_CLIP, PAPER_RESNET
from fastgen.train.sampling import BOTH, REAL
from fastgen.train.trial import Labelled, Problem, run_trial

RECIPE = Recipe(optimizer="adam", lr=1e-2, weight_decay=0.0, steps=150)


def blobs(n, *, spread=0.3, seed=0, dim=8, classes=3):
    """Features (n, 1, dim) around one corner per class, and labels (n,)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = 2.0 * np.eye(classes, dim)
    return (centres[labels] + spread * rng.standard_normal((n, dim))).astype(np.float32)[:, None], labels


def toy_problem(children=None, **changes):
    """One real image per class with a large offset of its own; children spread around the class centre."""
    rng = np.random.default_rng(5)
    x, y = blobs(3, spread=0.0)
    x = x + 1.6 * rng.standard_normal(x.shape).astype(np.float32)
    test_x, test_y = blobs(300, spread=0.5, seed=1)
    child_x, child_y = children or (np.zeros((0, 1, 8), np.float32), np.zeros(0, np.int64))
    recipe = changes.pop("recipe", RECIPE)
    features = changes.pop("features", np.concatenate([x, child_x]))
    labels = changes.pop("labels", np.concatenate([y, child_y]))
    test = Labelled(images=CachedFeatures(test_x), labels=test_y, rows=np.arange(300))
    settings = {"parents": np.arange(len(child_y)) % 3, "test": test, "shots": 1, "recipe": recipe}
    return Problem(
        classes=("a", "b", "c"), images=CachedFeatures(features), targets=Targets(labels, 3), **settings | changes
    )


def macro(problem, *, arm, seeds=3):
    return np.mean([run_trial(problem, s, arm=arm).accuracy.macro for s in range(seeds)])


def test_separable_features_reach_100_percent():
    x, y = blobs(60)
    test_x, test_y = blobs(90, seed=9)
    test = Labelled(images=CachedFeatures(test_x), labels=test_y, rows=np.arange(90))
    problem = toy_problem(features=x, labels=y, parents=np.zeros(0, np.int64), shots=None, test=test)
    trial = run_trial(problem, 0, arm=REAL)
    assert trial.accuracy.macro == 1.0
    assert trial.loss < 0.2


def test_good_children_raise_accuracy_and_shuffled_ones_lower_it():
    x, y = blobs(90, spread=0.5, seed=2)
    real = macro(toy_problem(), arm=REAL)
    good = macro(toy_problem((x, y)), arm=BOTH)
    shuffled = macro(toy_problem((x, (y + 1) % 3)), arm=BOTH)
    assert good > real + 0.1
    assert shuffled < real - 0.1


def test_real_arm_does_not_see_the_children():
    x, y = blobs(90, seed=2)
    with_children = run_trial(toy_problem((x, y)), 0, arm=REAL)
    without = run_trial(toy_problem(), 0, arm=REAL)
    torch.testing.assert_close(with_children.state["weight"], without.state["weight"])
    assert with_children.synthetic_share == 0
    assert run_trial(toy_problem((x, y)), 0, arm=BOTH).synthetic_share == pytest.approx(0.5, abs=0.03)


def test_augmented_views_are_trained_on_and_the_clean_one_is_not():
    x, y = blobs(3, spread=0.0)
    views = np.concatenate([np.full_like(x, np.nan), x, x], axis=1)  # the clean view would make the loss NaN
    trial = run_trial(toy_problem(features=views, labels=y), 0, arm=REAL)
    assert np.isfinite(trial.loss)


def test_held_out_half_is_the_test_set():
    x, y = blobs(60)
    problem = toy_problem(features=x, labels=y, parents=np.zeros(0, np.int64), test=None, shots=4)
    trial = run_trial(problem, 0, arm=REAL)
    assert (trial.train_images, trial.test_images) == (12, 30)
    assert trial.accuracy.macro == 1.0


def test_a_seed_repeats_exactly_and_leaves_the_global_generator_alone():
    state = torch.random.get_rng_state()
    first, again = (run_trial(toy_problem(), 4, arm=REAL) for _ in range(2))
    torch.testing.assert_close(first.state["weight"], again.state["weight"], rtol=0, atol=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    other = run_trial(toy_problem(), 5, arm=REAL)
    assert not torch.equal(first.state["weight"], other.state["weight"])


def test_clip_head_starts_from_the_text_embeddings_as_they_are():
    text = torch.arange(6.0).reshape(2, 3)
    head = new_head(3, 2, seed=0, text=text)
    torch.testing.assert_close(head.weight.detach(), text)
    torch.testing.assert_close(head.bias, new_head(3, 2, seed=0).bias)
    assert class_prompts(["Basset_Hound"]) == ["a photo of a Basset Hound"]


def test_paper_recipes_are_those_of_the_official_code():
    assert (PAPER_RESNET.optimizer, PAPER_RESNET.lr, PAPER_RESNET.steps, PAPER_RESNET.batch) == (
        "adam",
        1e-4,
        10_000,
        32,
    )
    adamw = make_optimizer(new_head(2, 2, seed=0), PAPER_CLIP)
    assert isinstance(adamw, torch.optim.AdamW)
    assert (adamw.defaults["lr"], adamw.defaults["weight_decay"], PAPER_CLIP.steps) == (2e-4, 0.1, 10_000)
    with pytest.raises(FastgenError, match="optimizer is 'lamb'; it must be one of adam, adamw, sgd"):
        Recipe(optimizer="lamb")


def test_nan_features_are_wrong_data():
    x, y = blobs(6)
    problem = toy_problem(features=np.full_like(x, np.nan), labels=y, parents=np.zeros(0, np.int64))
    with pytest.raises(DataError, match="training loss is nan"):
        run_trial(problem, 0, arm=REAL)
