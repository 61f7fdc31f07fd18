"""Whole trainings of a tiny ResNet: they learn, they stop and go on, and they never choose on the test images."""

import json
import os
import signal

import pytest
from PIL import Image

from fastgen.errors import FastgenError, Interrupted, OutputError
from fastgen.train import fit as module
from fastgen.train.command import train
from fastgen.train.results import make_metrics
from fastgen.train.sampling import REAL
from fastgen.train.sweep import sweep
from fastgen.train.trial import Trial
from tests.colour_squares import make_images, square
from tests.output_folder import make_row, write_output
from tests.tiny_clip import make_tiny_clip
from tests.tiny_resnet import make_tiny_resnet

FULL = {"transform": "none", "optimizer": "adamw", "lr": "3e-3", "batch": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Real images, synthetic ones with soft labels among them, and two tiny networks."""
    root = tmp_path_factory.mktemp("fit")
    make_images(root / "real" / "train", 4)
    make_images(root / "real" / "test", 6, start=100)
    rows = []
    for i in range(12):
        name = ("blue", "red")[i % 2]
        soft = {"labels": [[i % 2, 0.75], [1 - i % 2, 0.25]]} if i < 2 else {}
        rows.append(make_row(i, class_=name, ref={"id": f"{name}/{i % 3}.png"}, image=square(name, 500 + i), **soft))
    write_output(root / "out", rows)
    make_tiny_resnet(root / "resnet")
    make_tiny_clip(root / "clip")
    return root


def run(folder, out, *, backbone="timm/tiny", net="resnet", settings=None, **options):
    options = {"seeds": 1, "steps": 12, "synthetic": folder / "out", **options}
    given = {**FULL, **(settings or {})}
    return train(folder / "real", out=out, backbone=f"{backbone}={folder / net}", settings=given, **options)


def only(metrics, arm="real+synthetic"):
    return metrics["arms"][arm]["seeds"][0]


def test_full_fine_tuning_learns_the_colours(folder, tmp_path):
    metrics = run(folder, tmp_path, tune="full", steps=40)
    assert metrics["arms"]["real"]["accuracy_macro"]["mean"] == 1.0
    assert metrics["settings"]["tune"] == "full" and metrics["settings"]["head"] == "linear"
    assert not (tmp_path / "heads.safetensors").exists()
    assert len(list((tmp_path / "trials").glob("*.safetensors"))) == 2


def test_bobs_recipe_runs_on_every_kind_and_says_what_it_did(folder, tmp_path):
    metrics = run(
        folder, tmp_path, backbone="open_clip/tiny", net="clip", recipe="bob", synthetic_only=True, steps=3,
        val="test:2",
    )  # fmt: skip
    said = metrics["settings"]
    assert (said["tune"], said["mix"], said["real_weight"], said["precision"]) == ("lora", "replicate", 0.8, "fp32")
    assert set(metrics["arms"]) == {"real", "real+synthetic", "synthetic"}
    assert only(metrics, "synthetic")["synthetic_share"] == 1.0
    assert metrics["data"]["synthetic"]["soft_labels"] == 2
    assert only(metrics)["test_images"] == 8 and metrics["select"] == "best_on_val"
    assert only(metrics)["validation"] is not None


class Killed(Exception):
    pass


@pytest.mark.parametrize("stop", ["kill", "signal"])
def test_a_stopped_training_goes_on_exactly(folder, tmp_path, monkeypatch, stop):
    options = {"tune": "full", "settings": {"bn": "train", "transform": "dalda", "mix_p": "0.5", "mix": "replicate"}}
    whole = run(folder, tmp_path / "whole", **options)
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0.0 if stop == "kill" else 1e9)
    step, calls = module._Training.step, []

    def dying(self, x):
        step(self, x)
        calls.append(0)
        if len(calls) == 18:  # the sixth step of the second arm
            if stop == "kill":
                raise Killed
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(module._Training, "step", dying)
    with pytest.raises(Killed if stop == "kill" else Interrupted):
        run(folder, tmp_path / "parts", **options)
    assert not (tmp_path / "parts" / "metrics.json").exists()
    monkeypatch.setattr(module._Training, "step", step)
    again = run(folder, tmp_path / "parts", **options)
    assert again == whole
    assert not list((tmp_path / "parts" / "trials").glob("*.checkpoint"))


def test_finished_trials_are_not_trained_again_unless_something_changed(folder, tmp_path, monkeypatch):
    first = run(folder, tmp_path)
    monkeypatch.setattr(module._Training, "step", None)  # a step would end with a TypeError
    assert run(folder, tmp_path) == first
    with pytest.raises(TypeError):
        run(folder, tmp_path, steps=13)
    next((tmp_path / "trials").glob("real.*.json")).write_text("{")
    with pytest.raises(OutputError, match="not a finished trial .* delete it to train it again"):
        run(folder, tmp_path)


def test_official_batch_statistics_are_trained_online_and_its_evaluation_is_named(folder, tmp_path):
    settings = {"eval_every": "4", "transform": "dalda"}
    metrics = run(folder, tmp_path, recipe="dalda-official", synthetic=None, seeds=2, settings=settings)
    assert (metrics["select"], metrics["settings"]["eval"]) == ("best_on_eval", "resample6400")
    assert [seed["step"] % 4 for seed in metrics["arms"]["real"]["seeds"]] == [0, 0]
    assert metrics["arms"]["real"]["seeds"][0]["last"] is not None
    assert metrics["backbone"]["mean"] == [0.4, 0.4, 0.4] or metrics["settings"]["norm"] == "half"


def test_the_best_step_is_that_of_the_validation_images(folder, tmp_path):
    """With the labels of the validation images turned round, the worst step on the test images wins.

    Card of BOB, mistake 21.
    """
    for name, other in (("blue", "red"), ("red", "blue")):
        (tmp_path / "val" / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(square(other, 900 + i)).save(tmp_path / "val" / name / f"{i}.png")
    settings = {"eval_every": "2", "transform": "none", "lr": "1e-2"}
    metrics = run(
        folder, tmp_path / "m", tune="full", synthetic=None, val=tmp_path / "val", steps=30, settings=settings
    )
    seed = only(metrics, "real")
    assert seed["last"]["accuracy_macro"] == 1.0
    assert seed["step"] < 30
    assert seed["accuracy_macro"] < seed["last"]["accuracy_macro"]


def test_best_on_eval_takes_one_step_for_all_seeds():
    from fastgen.train.metrics import Accuracy

    def trial(seed, *macros):
        history = [(10 * (k + 1), Accuracy(m, m, (m,))) for k, m in enumerate(macros)]
        return Trial(
            seed=seed, state={}, accuracy=history[-1][1], loss=0.1, train_images=1, test_images=1, synthetic_share=0.0,
            step=30, steps=30, counts=(1,), history=history,
        )  # fmt: skip

    trials = {REAL: [trial(0, 0.9, 0.8, 0.1), trial(1, 0.2, 0.7, 0.1)]}
    metrics = make_metrics(trials, ["a"], select="best_on_eval")
    assert [s["step"] for s in metrics["arms"]["real"]["seeds"]] == [20, 20]
    assert metrics["arms"]["real"]["accuracy_macro"]["mean"] == pytest.approx(0.75)


def test_long_tail_counts_and_groups(folder, tmp_path):
    metrics = run(folder, tmp_path, imbalance=4, groups=(2, 2), synthetic=None)
    seed = only(metrics, "real")
    assert sorted(seed["train_counts"].values()) == [1, 4]
    assert seed["group_classes"] == {"many": 1, "medium": 0, "few": 1}
    assert seed["accuracy_medium"] is None
    assert "accuracy_few" in metrics["arms"]["real"] and "accuracy_medium" not in metrics["arms"]["real"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val": "0"}, "val is '0'; it must take at least 1"),
        ({"val": "nowhere"}, "val is 'nowhere'; it must be a folder"),
        ({"val": "3", "shots": 2}, "class 'blue' has 4 image.s., too few for 2 to train on and 3 to validate"),
        ({"val": "test:6"}, "class 'blue' has 6 test image.s.; to validate with 6"),
        ({"shots": 1, "imbalance": 10}, "got shots 1 and imbalance 10; give one"),
        ({"groups": (2, 5)}, "groups are 2,5; the first"),
        ({"synthetic": None, "synthetic_only": True}, "synthetic_only needs synthetic images"),
        ({"settings": {"select": "best_on_val"}}, "no validation images; give some with --val"),
        ({"tune": "lora"}, "tune lora needs a CLIP"),
    ],
)
def test_bad_options_are_named(folder, tmp_path, options, message):
    with pytest.raises(FastgenError, match=message):
        run(folder, tmp_path, **options)
    assert not (tmp_path / "metrics.json").exists()


def sweep_in(folder, out, **options):
    grid = {"lr": (1e-2, 1e-7), "weight_decay": (0.0,), "real_weight": (0.5, 0.8)}
    return sweep(
        folder / "real", out=out, backbone=f"timm/tiny={folder / 'resnet'}", synthetic=folder / "out", val="test:2",
        settings={"transform": "none", "batch": "8", "epochs": 3},
        **{"grid": grid, "sweep_epochs": 4, **options},
    )  # fmt: skip


def test_a_sweep_finds_the_rate_that_learns_and_trains_with_it(folder, tmp_path):
    metrics = sweep_in(folder, tmp_path)
    found = json.loads((tmp_path / "sweep.json").read_text())
    assert {arm: len(points) for arm, points in found["arms"].items()} == {"real": 2, "real+synthetic": 4}
    assert [winner["lr"] for winner in found["winners"].values()] == [1e-2, 1e-2]
    assert metrics["sweep"] == found["winners"] and metrics["settings"]["lr"] == 1e-2
    assert metrics["settings"]["epochs"] == 3 and metrics["select"] == "best_on_val"


def test_two_processes_share_a_sweep_and_end_as_one(folder, tmp_path, capsys):
    alone = sweep_in(folder, tmp_path / "alone")
    assert sweep_in(folder, tmp_path / "two", rank=1, world=2) is None
    assert "3 of 6 trials are other processes'" in capsys.readouterr().err
    assert sweep_in(folder, tmp_path / "two", rank=0, world=2) is None  # the last trial of the other arm is rank 1's
    assert sweep_in(folder, tmp_path / "two", rank=1, world=2) == alone
    with pytest.raises(FastgenError, match="recipe mae is for a vision transformer"):
        sweep_in(folder, tmp_path / "x", recipe="mae")
    with pytest.raises(FastgenError, match="sweep_epochs is 0"):
        sweep_in(folder, tmp_path / "x", sweep_epochs=0)
