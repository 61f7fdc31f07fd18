"""How often what is drawn, and which images a seed may see."""

from dataclasses import replace

import numpy as np
import pytest

from fastgen.errors import DataError, FastgenError
from fastgen.train.recipe import Recipe
from fastgen.train.sampling import BOTH, REAL, SYNTHETIC, make_draws, make_mixer, split_images, streams

LABELS = np.array([0, 0, 1, 1])
PARENTS = np.array([0, 0, 0, 2, 2, 3, -1])
SYNTHETIC_LABELS = np.array([0, 0, 0, 1, 1, 1, 1])
N = 40_000


def mixer(mix="parent", train=(0, 1, 2, 3), probability=0.5):
    return make_mixer(
        mix, np.array(train), LABELS,
        parents=PARENTS, synthetic_labels=SYNTHETIC_LABELS, probability=probability,
    )  # fmt: skip


def shares(mixer, seed=0):
    drawn = mixer.draw(N, streams(seed)[1:4])
    return np.bincount(drawn, minlength=len(LABELS) + len(PARENTS)) / N


def test_parent_mix_has_half_real_half_children_of_each_parent():
    found = shares(mixer())
    expected = np.array([0.125, 0.25, 0.125, 0.125, *[0.125 / 3] * 3, 0.0625, 0.0625, 0.125, 0.0])
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert found[-1] == 0  # an image without a parent is never drawn


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_probability_is_per_draw_with_fallback_to_the_real_image(probability):
    found = shares(mixer(probability=probability))
    assert found[4:].sum() == pytest.approx(0.75 * probability, abs=0.01)
    assert found[1] == pytest.approx(0.25, abs=0.01)  # real image 1 has no child


def test_class_mix_is_uniform_within_the_class():
    found = shares(mixer("class_uniform"))
    np.testing.assert_allclose(found[4:7], 0.25 / 3, atol=0.01)
    np.testing.assert_allclose(found[7:], 0.25 / 4, atol=0.01)


def test_pool_mix_is_uniform_over_all():
    np.testing.assert_allclose(shares(mixer("pool_uniform"))[4:], 0.5 / 7, atol=0.01)


@pytest.mark.parametrize("mix", ["parent", "class_uniform", "pool_uniform"])
def test_children_of_images_outside_the_training_set_are_never_drawn(mix):
    found = shares(mixer(mix, train=(0, 3)))
    assert found[[1, 2]].sum() == 0
    assert found[[7, 8]].sum() == 0  # children of real image 2
    assert found[9] > 0


def test_no_children_at_all_draws_real_images():
    nothing = np.zeros(0, np.int64)
    empty = make_mixer(
        "parent", np.arange(4), LABELS, parents=nothing, synthetic_labels=nothing, probability=0.5
    )
    assert set(empty.draw(1000, streams(0)[1:4])) == {0, 1, 2, 3}


def test_both_arms_draw_the_same_real_images():
    real = mixer(probability=0.0).draw(N, streams(3)[1:4])
    mixed = mixer(probability=0.5).draw(N, streams(3)[1:4])
    kept = mixed < 4
    np.testing.assert_array_equal(real[kept], mixed[kept])
    np.testing.assert_array_equal(PARENTS[mixed[~kept] - 4], real[~kept])


def split(seed=0, **options):
    labels = np.repeat([0, 1], [10, 6])
    preferred = np.zeros(16, bool)
    preferred[[7, 8, 12]] = True
    options = {"shots": None, "hold_out": False} | options
    found = split_images(labels, preferred, streams(seed)[0], classes=("cat", "dog"), **options)
    return found, labels, preferred


def test_shots_are_chosen_per_class_and_parents_come_first():
    found, labels, preferred = split(shots=2)
    assert np.bincount(labels[found.train]).tolist() == [2, 2]
    assert set(found.train) >= set(np.flatnonzero(preferred))
    assert len(found.held_out) == 0


def test_halves_are_disjoint_and_differ_between_seeds():
    found, labels, preferred = split(hold_out=True)
    assert sorted([*found.train, *found.held_out]) == list(range(16))
    assert np.bincount(labels[found.train]).tolist() == [5, 3]
    assert not preferred[found.held_out].any()
    assert set(split(seed=1, hold_out=True)[0].held_out) != set(found.held_out)
    np.testing.assert_array_equal(split(hold_out=True)[0].train, found.train)


def test_too_many_shots_name_the_class():
    with pytest.raises(FastgenError, match="class 'dog' has 6 image.s. to train on, but shots is 7"):
        split(shots=7)


def test_one_image_cannot_be_split():
    with pytest.raises(FastgenError, match="class 'b' has 1 real image.*test folder"):
        split_images(
            np.array([0, 0, 1]),
            np.zeros(3, bool),
            streams(0)[0],
            classes=("a", "b"),
            shots=None,
            hold_out=True,
        )


def pool_draws(arm, *, real_repeat="floor", n_synthetic=25, **changes):
    train, labels = np.arange(4), np.array([0, 0, 1, 1])
    mixer = make_mixer(
        "replicate", train, labels,
        parents=np.full(n_synthetic, -1), synthetic_labels=np.arange(n_synthetic) % 2, probability=0.5,
    )  # fmt: skip
    recipe = Recipe(mix="replicate", real_repeat=real_repeat, batch=8, **{"epochs": 3, **changes})
    return make_draws(mixer, recipe, streams(0)[1:4], arm=arm)


def test_a_pool_holds_floor_copies_of_every_real_image_and_every_synthetic_one_once():
    """Card of BOB, mistake 13."""
    draws = pool_draws(BOTH)
    assert (draws.epoch, len(draws.batches), draws.both) == (7, 21, True)
    first = draws.rows[: 4 * 6 + 25]
    assert np.bincount(first, minlength=29).tolist() == [6] * 4 + [1] * 25
    assert [len(batch) for batch in draws.batches[:7]] == [8] * 6 + [1]
    assert (np.concatenate(draws.batches) == np.arange(3 * 49)).all()
    assert sorted(draws.rows[:49]) == sorted(draws.rows[49:98]) and list(draws.rows[:49]) != list(draws.rows[49:98])


def test_copies_are_at_least_one_or_exact_or_a_number():
    assert np.bincount(pool_draws(BOTH, n_synthetic=2, epochs=1).rows).tolist() == [1] * 6
    exact = pool_draws(BOTH, real_repeat="exact", epochs=1).rows
    assert (exact < 4).sum() == 25 and np.bincount(exact[exact < 4]).max() == 7
    assert (pool_draws(BOTH, real_repeat=5, epochs=1).rows < 4).sum() == 20


def test_arms_of_a_pool_differ_by_the_synthetic_images_alone():
    real, synthetic = pool_draws(REAL, epochs=1), pool_draws(SYNTHETIC, epochs=1)
    assert np.bincount(real.rows).tolist() == [6] * 4
    assert sorted(synthetic.rows) == list(range(4, 29))
    assert not real.both and not synthetic.both


def test_steps_cut_a_pool_short_and_reach_beyond_one_epoch():
    assert len(pool_draws(BOTH, epochs=None, steps=3).batches) == 3
    assert len(pool_draws(BOTH, epochs=None, steps=20).batches) == 20


def test_the_synthetic_arm_draws_synthetic_images_only():
    mixer = make_mixer(
        "parent", np.arange(3), np.array([0, 0, 1]),
        parents=np.array([0, 0, 2]), synthetic_labels=np.array([0, 0, 1]), probability=0.5,
    )  # fmt: skip
    recipe = Recipe(steps=50, batch=4)
    rows = make_draws(mixer, recipe, streams(1)[1:4], arm=SYNTHETIC).rows
    assert set(rows) == {3, 4, 5}
    assert set(make_draws(mixer, recipe, streams(1)[1:4], arm=REAL).rows) == {0, 1, 2}
    with pytest.raises(DataError, match="no synthetic image that this seed may train on"):
        nothing = replace(mixer, children=mixer.children[:0], count=0 * mixer.count)
        make_draws(nothing, recipe, streams(1)[1:4], arm=SYNTHETIC)


def test_an_epoch_of_draws_is_a_pass_over_the_real_images():
    mixer = make_mixer(
        "parent", np.arange(10), np.zeros(10, int),
        parents=np.zeros(0, int), synthetic_labels=np.zeros(0, int), probability=0.5,
    )  # fmt: skip
    draws = make_draws(mixer, Recipe(epochs=3, batch=4), streams(0)[1:4], arm=REAL)
    assert (draws.epoch, len(draws.batches)) == (3, 9)


def test_validation_images_are_disjoint_from_training_and_test():
    labels = np.repeat([0, 1], 12)
    split = split_images(
        labels, np.zeros(24, bool), np.random.default_rng(0),
        classes=("a", "b"), shots=[2, 4], hold_out=True, validation=2,
    )  # fmt: skip
    assert np.bincount(labels[split.train]).tolist() == [2, 4]
    assert np.bincount(labels[split.validation]).tolist() == [2, 2]
    everything = np.concatenate([split.train, split.validation, split.held_out])
    assert len(set(everything)) == len(everything) == 6 + 4 + 12
    with pytest.raises(FastgenError, match="class 'a' has 6 image.s., too few for 5 to train on and 2 to validate"):
        split_images(
            labels, np.zeros(24, bool), np.random.default_rng(0),
            classes=("a", "b"), shots=5, hold_out=True, validation=2,
        )  # fmt: skip
