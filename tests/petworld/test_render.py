"""Tests of the PetWorld renderer."""

import hashlib
import subprocess
import sys
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest

from fastgen.petworld.attributes import (
    BACKGROUNDS,
    LIGHTS,
    NOVEL_PETS,
    OXFORD_PETS,
    POSES,
    SIDES,
    STYLES,
    Scene,
)
from fastgen.petworld.breeds import PRETRAINING_PETS, breed
from fastgen.petworld.render import render, sample_scene

ROOT = Path(__file__).resolve().parents[2]
SCENE = Scene(
    breed="Beagle", pose="standing", background="meadow", style="photo", side="right", light="bright",
    x=0.5, y=0.0, size=1.0, detail_seed=7,
)  # fmt: skip
EVERY_BREED = (*OXFORD_PETS, *NOVEL_PETS, *PRETRAINING_PETS)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference of two pictures, 0 to 255."""
    return float(np.abs(a.astype(np.float64) - b).mean())


@pytest.mark.parametrize("size", [16, 33, 64, 128])
@pytest.mark.parametrize("style", STYLES)
def test_pictures_are_rgb_bytes_of_the_size_asked_for(style, size):
    picture = render(replace(SCENE, style=style, realism=0.5), size)
    assert picture.shape == (size, size, 3) and picture.dtype == np.uint8
    assert picture.std() > 10


def test_default_size_is_64():
    assert render(SCENE).shape == (64, 64, 3)


@pytest.mark.parametrize("realism", [0.0, 1.0])
def test_rendering_twice_gives_the_same_bytes(realism):
    scene = replace(SCENE, realism=realism)
    first = render(scene)
    render(replace(scene, breed="Pug", detail_seed=9))
    np.random.seed(3)
    assert np.array_equal(render(scene), first)


def test_another_process_draws_the_same_bytes():
    drawn = [sample_scene(5, i, breeds=EVERY_BREED, styles=STYLES, realism=(0.0, 1.0)) for i in range(6)] + [
        replace(SCENE, style=style, realism=1.0) for style in STYLES
    ]
    code = (
        "import hashlib, sys\nfrom fastgen.petworld.attributes import Scene\n"
        "from fastgen.petworld.render import render\n"
        "for line in sys.stdin: print(hashlib.sha256(render(eval(line)).tobytes()).hexdigest())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input="\n".join(map(repr, drawn)), capture_output=True, text=True,
        cwd=ROOT, check=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.split() == [hashlib.sha256(render(scene).tobytes()).hexdigest() for scene in drawn]


def test_a_scene_of_a_stream_does_not_depend_on_the_others():
    def draw(index: int) -> Scene:
        return sample_scene(11, index, breeds=OXFORD_PETS, styles=STYLES, realism=(0.0, 1.0))

    forward = [draw(i) for i in range(50)]
    assert [draw(i) for i in reversed(range(50))] == forward[::-1]
    assert len({scene.detail_seed for scene in forward}) == 50
    other = [sample_scene(12, i, breeds=OXFORD_PETS) for i in range(50)]
    assert not {s.detail_seed for s in other} & {s.detail_seed for s in forward}


def test_sampled_scenes_keep_to_the_values_asked_for():
    options = {"poses": POSES[:2], "backgrounds": BACKGROUNDS[3:5], "styles": STYLES[1:3]}
    found = [sample_scene(1, i, breeds=("Pug", "Boxer"), realism=(0.2, 0.4), **options) for i in range(200)]
    assert {s.breed for s in found} == {"Pug", "Boxer"}
    assert {s.pose for s in found} == set(POSES[:2])
    assert {s.background for s in found} == set(BACKGROUNDS[3:5])
    assert {s.style for s in found} == set(STYLES[1:3])
    assert {s.side for s in found} == set(SIDES) and {s.light for s in found} == set(LIGHTS)
    assert all(0.38 <= s.x <= 0.62 and -0.05 <= s.y <= 0.05 and 0.8 <= s.size <= 1.2 for s in found)
    assert all(0.2 <= s.realism <= 0.4 for s in found)


@pytest.mark.parametrize(
    "options, message",
    [({"breeds": ()}, "breeds is empty"), ({"poses": ()}, "poses is empty"), ({"seed": -1}, "must be >= 0")],
)
def test_sampling_from_nothing_is_refused(options, message):
    arguments = {"seed": 0, "breeds": ("Pug",), **options}
    with pytest.raises(ValueError, match=message):
        sample_scene(arguments.pop("seed"), 0, **arguments)


def test_every_breed_has_attributes_of_its_own():
    assert len(set(EVERY_BREED)) == 37 + 12 + 64
    assert all(breed(name).name == name for name in EVERY_BREED)
    assert len({astuple(breed(name))[1:] for name in EVERY_BREED}) == len(EVERY_BREED)


def test_every_breed_looks_different():
    drawn = {name: render(replace(SCENE, breed=name), 32) for name in (*OXFORD_PETS, *NOVEL_PETS)}
    names = list(drawn)
    closest = min(difference(drawn[a], drawn[b]) for i, a in enumerate(names) for b in names[:i])
    assert closest > 0.5


@pytest.mark.parametrize(
    "field, values, least",
    [
        ("style", STYLES, 8),
        ("background", BACKGROUNDS, 8),
        ("pose", POSES, 5),
        ("light", LIGHTS, 8),
        ("side", SIDES, 5),
        ("x", (0.38, 0.62), 3),
        ("y", (-0.05, 0.05), 2),
        ("size", (0.8, 1.2), 2),
        ("detail_seed", (1, 2, 2**63 - 2), 1),
        ("realism", (0.0, 0.5, 1.0), 4),
    ],
)
def test_every_attribute_changes_the_picture(field, values, least):
    drawn = [render(replace(SCENE, **{field: value})) for value in values]
    for i, a in enumerate(drawn):
        for b in drawn[:i]:
            assert difference(a, b) > least


def test_realism_widens_the_gap_to_the_plain_picture():
    """Single scenes differ (an object may or may not stand there), the mean over many grows."""
    plain = [sample_scene(2, i, breeds=OXFORD_PETS) for i in range(24)]
    gaps = [
        np.mean([difference(render(replace(s, realism=r), 32), render(s, 32)) for s in plain])
        for r in (0.1, 0.4, 0.8)
    ]
    assert 0 < gaps[0] < gaps[1] < gaps[2]


def test_facing_mirrors_the_animal_but_not_the_background():
    empty_corner = (slice(0, 8), slice(0, 8))
    right, left = render(SCENE), render(replace(SCENE, side="left"))
    assert difference(right[empty_corner], left[empty_corner]) < 1
    assert difference(right, left) > 5


@pytest.mark.parametrize(
    "change, message",
    [
        ({"pose": "flying"}, "scene.pose is 'flying'; it must be one of sitting"),
        ({"background": "moon"}, "scene.background is 'moon'"),
        ({"style": "oil"}, "scene.style is 'oil'"),
        ({"side": "up"}, "scene.side is 'up'; it must be one of left, right"),
        ({"light": "none"}, "scene.light is 'none'"),
        ({"realism": 1.5}, "scene.realism is 1.5; it must be 0 to 1"),
        ({"breed": "Beagel"}, "no breed named 'Beagel'; close matches: Beagle"),
    ],
)
def test_impossible_scenes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        render(replace(SCENE, **change))


@pytest.mark.parametrize("size", [0, 15, 1025])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ValueError, match="it must be 16 to 1024"):
        render(SCENE, size)


GOLDEN = [
    ({}, (166.1, 216.8, 243.4), (130.9, 165.7, 88.2), 67.8),
    ({"breed": "Samoyed", "background": "night", "pose": "sitting", "light": "dim", "side": "left"},
     (44.1, 46.9, 72.0), (65.6, 73.2, 88.5), 56.6),
    ({"breed": "Cobaltine", "background": "snow", "pose": "running", "light": "soft"},
     (165.0, 185.1, 204.4), (170.9, 185.2, 205.5), 47.9),
    ({"breed": "Siamese", "background": "kitchen", "pose": "lying", "light": "golden"},
     (234.4, 201.8, 147.8), (194.2, 154.4, 107.9), 62.7),
    ({"style": "art painting"}, (160.9, 214.7, 197.9), (130.4, 170.6, 57.0), 66.6),
    ({"style": "cartoon"}, (163.0, 237.8, 239.1), (121.4, 170.8, 75.7), 81.1),
    ({"style": "sketch"}, (230.7, 229.5, 223.8), (203.2, 202.2, 197.2), 38.2),
    ({"style": "watercolor"}, (207.1, 236.8, 243.8), (189.7, 205.6, 155.9), 44.8),
    ({"style": "pixel art"}, (150.3, 214.8, 237.2), (116.0, 156.4, 69.6), 79.4),
    ({"style": "3d render"}, (138.6, 168.9, 183.9), (103.6, 121.6, 77.5), 52.3),
    ({"style": "cyberpunk"}, (126.2, 59.2, 147.9), (78.7, 92.3, 136.5), 57.2),
    ({"realism": 1.0}, (198.4, 202.5, 218.1), (145.7, 159.1, 97.0), 70.0),
]  # fmt: skip
"""Mean colours of the upper and the lower half, and the standard deviation of all values."""


@pytest.mark.parametrize("change, upper, lower, spread", GOLDEN)
def test_pictures_look_as_they_did(change, upper, lower, spread):
    """If a change of the renderer is meant: correct `GOLDEN` and raise `fastgen.petworld.dataset.FORMAT`.

    The embedded model was trained on these pictures, so it has to be trained again, too.
    """
    picture = render(replace(SCENE, **change))
    np.testing.assert_allclose(picture[:32].mean((0, 1)), upper, atol=2.5)
    np.testing.assert_allclose(picture[32:].mean((0, 1)), lower, atol=2.5)
    assert picture.std() == pytest.approx(spread, abs=2.5)
