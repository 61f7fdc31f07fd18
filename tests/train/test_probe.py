"""The head learns what can be learned, and nothing else."""

import numpy as np
import pytest
import torch

from fastgen.errors import DataError, FastgenError
from fastgen.train.backbone import PAPER_CLIP, PAPER_RESNET, Recipe
from fastgen.train.probe import class_prompts, fit_head, make_optimizer, new_head, predict
from fastgen.train.trial import Problem, run_trial

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
    settings = {
        "classes": ("a", "b", "c"),
        "features": np.concatenate([x, child_x]),
        "labels": np.concatenate([y, child_y]),
        "parents": np.arange(len(child_y)) % 3,
        "test": (test_x[:, 0], test_y),
        "text": None,
        "recipe": RECIPE,
        "shots": 1,
        "probability": 0.5,
        "mix": "parent",
    }
    return Problem(**settings | changes)


def macro(problem, *, synthetic, seeds=3):
    return np.mean([run_trial(problem, s, synthetic=synthetic).accuracy.macro for s in range(seeds)])


def test_separable_features_reach_100_percent():
    x, y = blobs(60)
    rows = np.random.default_rng(0).integers(0, 60, RECIPE.steps * RECIPE.batch)
    head = new_head(8, 3, seed=0)
    loss = fit_head(head, x, y, rows=rows, views=np.zeros_like(rows), recipe=RECIPE)
    assert (predict(head, blobs(90, seed=9)[0][:, 0]) == np.arange(90) % 3).all()
    assert loss < 0.2


def test_good_children_raise_accuracy_and_shuffled_ones_lower_it():
    x, y = blobs(90, spread=0.5, seed=2)
    real = macro(toy_problem(), synthetic=False)
    good = macro(toy_problem((x, y)), synthetic=True)
    shuffled = macro(toy_problem((x, (y + 1) % 3)), synthetic=True)
    assert good > real + 0.1
    assert shuffled < real - 0.1


def test_real_arm_does_not_see_the_children():
    x, y = blobs(90, seed=2)
    with_children = run_trial(toy_problem((x, y)), 0, synthetic=False)
    without = run_trial(toy_problem(), 0, synthetic=False)
    torch.testing.assert_close(with_children.head.weight, without.head.weight)
    assert with_children.synthetic_share == 0
    assert run_trial(toy_problem((x, y)), 0, synthetic=True).synthetic_share == pytest.approx(0.5, abs=0.03)


def test_augmented_views_are_trained_on_and_the_clean_one_is_not():
    x, y = blobs(3, spread=0.0)
    views = np.concatenate([np.full_like(x, np.nan), x, x], axis=1)  # the clean view would make the loss NaN
    trial = run_trial(toy_problem(features=views, labels=y), 0, synthetic=False)
    assert np.isfinite(trial.loss)


def test_held_out_half_is_the_test_set():
    x, y = blobs(60)
    problem = toy_problem(features=x, labels=y, parents=np.zeros(0, np.int64), test=None, shots=4)
    trial = run_trial(problem, 0, synthetic=False)
    assert (trial.train_images, trial.test_images) == (12, 30)
    assert trial.accuracy.macro == 1.0


def test_a_seed_repeats_exactly_and_leaves_the_global_generator_alone():
    state = torch.random.get_rng_state()
    first, again = (run_trial(toy_problem(), 4, synthetic=False) for _ in range(2))
    torch.testing.assert_close(first.head.weight, again.head.weight, rtol=0, atol=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    other = run_trial(toy_problem(), 5, synthetic=False)
    assert not torch.equal(first.head.weight, other.head.weight)


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
    with pytest.raises(FastgenError, match="must be adam or adamw"):
        make_optimizer(new_head(2, 2, seed=0), Recipe(optimizer="sgd", lr=1.0, weight_decay=0.0, steps=1))


def test_nan_features_are_wrong_data():
    x, y = blobs(6)
    with pytest.raises(DataError, match="training loss is nan"):
        fit_head(
            new_head(8, 3, seed=0), np.full_like(x, np.nan), y,
            rows=np.zeros(64, np.int64), views=np.zeros(64, np.int64),
            recipe=Recipe(optimizer="adam", lr=1e-3, weight_decay=0.0, steps=2),
        )  # fmt: skip
