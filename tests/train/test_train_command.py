"""The whole command on coloured squares, with a backbone that sees the mean colour."""

import json

import pytest
import torch
from safetensors import safe_open

from fastgen.errors import DataError, FastgenError
from fastgen.train import command
from fastgen.train.backbone import Backbone
from fastgen.train.command import train
from fastgen.train.recipe import Recipe
from fastgen.train.results import load_head
from tests.colour_squares import COLOURS, make_images, square
from tests.output_folder import make_row, write_output

RECIPE = Recipe(optimizer="adam", lr=5e-2, weight_decay=0.0, steps=60, batch=8)


@pytest.fixture
def colours(monkeypatch):
    """A backbone whose features are the mean colour; counts its calls."""
    calls = []

    def encode(pixels):
        calls.append(len(pixels))
        return pixels.mean((2, 3))

    def load(name, *, device=None):
        return Backbone(
            name="mini-resnet", dim=3, size=16, mean=(0.5,) * 3, std=(0.5,) * 3, sha256="x", recipe=RECIPE,
            encode=encode,
        )  # fmt: skip

    monkeypatch.setattr(command, "load_backbone", load)
    return calls


@pytest.fixture
def data(tmp_path):
    make_images(tmp_path / "real" / "train", 3)
    make_images(tmp_path / "real" / "test", 6, start=100)
    rows = []
    for i in range(12):
        name = ("blue", "red")[i % 2]
        ref = {"id": f"{name}/{i % 3}.png"}
        rows.append(make_row(i, class_=name, ref=ref, image=square(name, 500 + i), status=int(i == 11)))
    write_output(tmp_path / "out", rows, per_shard=5)
    return tmp_path


def test_metrics_json_has_both_arms_and_their_paired_difference(data, colours):
    returned = train(data / "real", synthetic=data / "out", out=data / "m", seeds=3, views=2)
    metrics = json.loads((data / "m" / "metrics.json").read_text())
    assert metrics == json.loads(json.dumps(returned))
    assert metrics["fastgen_metrics"] == 1
    assert metrics["classes"] == ["blue", "red"]
    assert set(metrics["arms"]) == {"real", "real+synthetic"}
    for arm in metrics["arms"].values():
        assert set(arm) == {"accuracy_macro", "accuracy_micro", "seeds"}
        assert set(arm["accuracy_macro"]) == {"mean", "std", "ci95", "n"}
        assert [seed["seed"] for seed in arm["seeds"]] == [0, 1, 2]
        assert arm["accuracy_macro"]["mean"] == 1.0
        assert set(arm["seeds"][0]["per_class"]) == {"blue", "red"}
    assert len(metrics["difference"]["accuracy_macro"]["per_seed"]) == 3
    assert metrics["arms"]["real"]["seeds"][0]["synthetic_share"] == 0
    assert metrics["arms"]["real+synthetic"]["seeds"][0]["synthetic_share"] == pytest.approx(0.5, abs=0.1)
    assert metrics["data"]["synthetic"]["statuses"] == {"good": 11, "non_finite": 1}
    assert metrics["data"]["synthetic"]["with_parent"] == 11
    assert metrics["settings"]["steps"] == 60
    assert metrics["select"] == "last", "card of BOB, mistake 21: without validation images nothing is chosen"


def test_training_is_repeatable_and_uses_the_cache(data, colours):
    first = train(data / "real", synthetic=data / "out", out=data / "m", seeds=2, views=2)
    computed = sum(colours)
    assert computed == (6 + 11) * 3 + 12
    again = train(
        data / "real", synthetic=data / "out", out=data / "n", seeds=2, views=2, cache=data / "m" / "features"
    )
    assert sum(colours) == computed
    assert again == first


def test_without_synthetic_there_is_one_arm(data, colours):
    metrics = train(data / "real", out=data / "m", seeds=1, steps=5, views=0)
    assert set(metrics["arms"]) == {"real"}
    assert metrics["difference"] is None
    assert metrics["arms"]["real"]["accuracy_macro"]["ci95"] is None
    assert metrics["data"]["synthetic"] is None


def test_without_a_test_folder_half_is_held_out(data, colours):
    metrics = train(data / "real" / "train", out=data / "m", seeds=2, shots=1, views=0)
    seed = metrics["arms"]["real"]["seeds"][0]
    assert (seed["train_images"], seed["test_images"]) == (2, 2)


def test_heads_can_be_loaded(data, colours):
    train(data / "real", synthetic=data / "out", out=data / "m", seeds=2, views=0)
    head = load_head(data / "m" / "heads.safetensors", arm="real+synthetic", seed=1)
    pixels = torch.tensor([[(c / 255 - 0.5) / 0.5 for c in COLOURS[name]] for name in ("blue", "red")])
    assert head(pixels).argmax(1).tolist() == [0, 1]
    with safe_open(data / "m" / "heads.safetensors", "pt") as file:
        assert json.loads(file.metadata()["classes"]) == ["blue", "red"]
    with pytest.raises(FastgenError, match="has no head 'real.seed7'; it has .*real.seed0, real.seed1"):
        load_head(data / "m" / "heads.safetensors", seed=7)


def test_unlinked_children_say_what_does_not_match(data, colours):
    write_output(data / "stray", [make_row(0, ref={"id": "red/zzz.png"})])
    with pytest.raises(DataError, match="first reference id 'red/zzz.png', first real image 'blue/0.png'"):
        train(data / "real", synthetic=data / "stray", out=data / "m")
    metrics = train(
        data / "real", synthetic=data / "stray", out=data / "m", mix="class_uniform", seeds=1, views=0
    )
    assert metrics["arms"]["real+synthetic"]["seeds"][0]["synthetic_share"] > 0


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"seeds": 0}, "seeds is 0; it must be at least 1"),
        ({"steps": 0}, "steps is 0"),
        ({"shots": 0}, "shots is 0"),
        ({"views": -1}, "views is -1; it must be at least 0"),
        ({"synthetic_probability": 1.5}, "synthetic_probability is 1.5; it must be 0 to 1"),
        ({"mix": "half"}, "mix is 'half'; it must be one of parent, class_uniform, pool_uniform, replicate"),
        ({"shots": 4}, "class 'blue' has 3 image.s. to train on, but shots is 4"),
    ],
)
def test_bad_options_are_named(data, colours, option, message):
    with pytest.raises(FastgenError, match=message):
        train(data / "real", out=data / "m", **option)
    assert not (data / "m" / "metrics.json").exists()


def test_keep_trains_on_the_chosen_images_only(data, colours):
    lines = "".join(f'{{"id": "row-{i}", "keep": {"true" if i < 6 else "false"}}}\n' for i in range(11))
    (data / "keep.jsonl").write_text('{"fastgen_filter": 1}\n' + lines)
    found = train(data / "real", synthetic=data / "out", keep=data / "keep.jsonl", out=data / "m", seeds=1, views=0)
    assert found["data"]["synthetic"]["filtered_out"] == 5 and found["data"]["synthetic"]["images"] == 6
    with pytest.raises(FastgenError, match="keep chooses among synthetic images; give --synthetic"):
        train(data / "real", keep=data / "keep.jsonl", out=data / "m", seeds=1)
