"""How often what is drawn, and which images a seed may see."""

import numpy as np
import pytest

from fastgen.errors import FastgenError
from fastgen.train.sampling import make_mixer, split_images, streams

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
