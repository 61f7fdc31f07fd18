"""The linear probe against scipy's optimum, and the context section of report.json on PetWorld and by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from fastgen.cli import main
from fastgen.errors import DataError, FastgenError, ModelError
from fastgen.evaluate.context_probe import context_entry, context_notes
from fastgen.evaluate.evaluate import evaluate
from fastgen.evaluate.features import load_features
from fastgen.evaluate.linear_probe import fit_probe, held_out_accuracy
from fastgen.petworld.attributes import BACKGROUNDS, OXFORD_PETS
from fastgen.petworld.dataset import export
from fastgen.petworld.render import render, sample_scene
from tests.output_folder import make_row, write_output


def blobs(n, seed, values=("beach", "lake", "snow")):
    rng = np.random.default_rng(seed)
    labels = [values[i] for i in rng.integers(len(values), size=n)]
    centres = np.eye(len(values), 5) * 6
    return np.stack([centres[values.index(v)] + rng.normal(size=5) for v in labels]), labels


def test_the_probe_is_the_optimum_that_scipy_finds():
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    x, labels = blobs(60, 0)
    probe = fit_probe(x, labels, ridge=0.1)
    z = (x - x.mean(0)) / x.std(0)
    y = np.array([probe.values.index(v) for v in labels])

    def loss(parameters):
        w, b = parameters[:15].reshape(5, 3), parameters[15:]
        scores = z @ w + b
        return (logsumexp(scores, axis=1) - scores[np.arange(60), y]).mean() + 0.05 * (w**2).sum()

    oracle = minimize(loss, np.zeros(18), method="BFGS", options={"gtol": 1e-7})
    ours = np.concatenate([probe.weight.ravel(), probe.bias])
    assert loss(ours) == pytest.approx(oracle.fun, rel=1e-6)
    assert np.allclose(probe.weight.ravel(), oracle.x[:15], atol=1e-3)
    assert probe.predict(x) == [probe.values[k] for k in (z @ oracle.x[:15].reshape(5, 3) + oracle.x[15:]).argmax(1)]


def test_held_out_accuracy_is_high_for_what_can_be_seen_and_chance_for_what_cannot():
    x, labels = blobs(90, 1)
    assert held_out_accuracy(x, labels) > 0.95
    noise = np.random.default_rng(0).normal(size=(300, 5))
    assert 0.25 < held_out_accuracy(noise, [str(i % 3) for i in range(300)]) < 0.42
    assert held_out_accuracy(x[:5], ["a", "b", "b", "b", "b"]) <= 0.8


def test_a_table_a_verdict_and_what_was_requested():
    real, labels = blobs(90, 0)
    captions = [{"background": label} for label in labels]
    generated, shown = blobs(300, 2)
    classes = [{"beach": "a", "lake": "b", "snow": "c"}[v] for v in shown]
    rows = [{"attrs": {"background": v}} for v in shown[:150]] + [{"attrs": {"background": "moon"}}] * 150
    entry = context_entry(real, captions, generated, classes=classes, rows=rows)["background"]
    assert entry["values"] == ["beach", "lake", "snow"] and entry["real"] == 90
    assert entry["table"]["a"]["beach"] > 0.97 and sum(entry["table"]["a"].values()) == pytest.approx(1)
    assert entry["independence"]["dependent"] and entry["independence"]["mutual_information"] > 1.0
    assert entry["requested"]["images"] == 150 and entry["requested"]["right"] > 0.97
    rng = np.random.default_rng(3)
    mixed = context_entry(real, captions, generated, classes=rng.permutation(classes).tolist(), rows=rows)["background"]
    assert not mixed["independence"]["dependent"]
    assert mixed["independence"]["mutual_information"] < 3 * mixed["independence"]["bias"]


def test_rare_values_are_left_out_and_useless_probes_are_called_so():
    real, labels = blobs(60, 0)
    captions = [{"background": "moon" if i < 3 else label} for i, label in enumerate(labels)]
    entry = context_entry(real, captions, real, classes=["a", "b"] * 30, rows=[{}] * 60)
    assert entry["background"]["left_out"] == 3 and entry["background"]["requested"] == {"images": 0, "right": None}
    assert "3 real images have a background that fewer than 5" in context_notes(entry)[0]
    noise = np.random.default_rng(0).normal(size=real.shape)
    captions = [{"pose": str(i % 2)} for i in range(60)]
    blind = context_entry(noise, captions, noise, classes=["a", "b"] * 30, rows=[{}] * 60)
    assert any("its table says little" in note for note in context_notes(blind))
    with pytest.raises(DataError, match="background has 0 values with 5 or more real images"):
        context_entry(real, [{"background": str(i)} for i in range(60)], real, classes=["a"] * 60, rows=[{}] * 60)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """PetWorld's pictures of all breeds, to fit the probe to; and 3 classes of "generated" ones, confounded and not."""
    folder = tmp_path_factory.mktemp("probe")
    options = {"per_class": 10, "test_per_class": 1, "realism": (0, 0), "say": lambda _: None}
    export(folder / "world", classes=OXFORD_PETS[:14], **options)
    names = OXFORD_PETS[:3]
    for kind in ("confounded", "mixed"):
        rows = []
        for label, name in enumerate(names):
            for i in range(12):
                scene = sample_scene(7, 100 * label + i, breeds=(name,), realism=(0, 0))
                background = BACKGROUNDS[3 * label] if kind == "confounded" else BACKGROUNDS[3 * (i % 3)]
                scene = replace(scene, background=background, style="photo")
                attrs = {"background": background, "pose": scene.pose, "donor_id": f"d{i}"}
                row = make_row(len(rows), class_=name, classes=names, image=render(scene, 64), attrs=attrs)
                rows.append(row)
        write_output(folder / kind, rows, classes=names, side=64)
    return folder


def test_petworld_confounding_is_found_and_its_absence_too(world, tmp_path):
    """The embedded CLIP's features tell places; images with a place of its own for each class are dependent."""
    found = {}
    for kind in ("confounded", "mixed"):
        report = evaluate(
            world / kind,
            captions=world / "world" / "train" / "metadata.jsonl",
            probe=world / "world" / "train",
            real=world / "world" / "train",
            to=tmp_path / kind,
            console=Console(quiet=True),
        )
        assert json.loads((tmp_path / kind / "report.json").read_text()) == report
        found[kind] = report["context"]["attributes"]["background"]
        assert report["fid"]["classes"] == 3 and report["fid"]["mean"] > 0
        assert report["fid"]["per_class"][OXFORD_PETS[0]]["real"] == 10
        assert any("compare it only" in note for note in report["notes"])
    assert report["context"]["features"] == "clip" and report["fid"]["features"] == "mini-resnet"
    assert found["mixed"]["accuracy"] > 0.75 and found["mixed"]["chance"] < 0.3
    assert found["confounded"]["independence"]["dependent"] and not found["mixed"]["independence"]["dependent"]
    apart = [found[kind]["independence"]["mutual_information"] for kind in ("confounded", "mixed")]
    assert apart[0] > apart[1] + 0.6
    assert found["mixed"]["requested"]["right"] > 0.8


def test_equal_numbers_can_be_asked_for(world, tmp_path):
    options = {"real": world / "world" / "train", "to": tmp_path / "r", "console": Console(quiet=True)}
    entry = evaluate(world / "mixed", fid_images=6, features="clip", **options)["fid"]
    assert {(one["images"], one["real"]) for one in entry["per_class"].values()} == {(6, 6)}
    assert entry["features"] == "clip"


def test_bad_arguments_are_one_clear_error(world, tmp_path):
    quiet = {"to": tmp_path / "r", "console": Console(quiet=True)}
    with pytest.raises(FastgenError, match="give their folder with --probe, or --real"):
        evaluate(world / "mixed", captions=world / "world" / "train" / "metadata.jsonl", **quiet)
    with pytest.raises(FastgenError, match="holds train and test"):
        evaluate(world / "mixed", real=world / "world", **quiet)
    with pytest.raises(FastgenError, match="fid_images: got 1"):
        evaluate(world / "mixed", real=world / "world" / "train", fid_images=1, **quiet)
    with pytest.raises(FastgenError, match="features: got 'resnet'; allowed: mini-resnet, clip or inception=FILE"):
        load_features("resnet")
    with pytest.raises(FastgenError, match="allowed: mini-resnet"):
        load_features("inception")
    with pytest.raises(ModelError, match="no weights at"):
        load_features(f"inception={tmp_path / 'none.pth'}")
    (tmp_path / "other.pth").write_bytes(b"x")
    with pytest.raises(ModelError, match="features inception"):
        load_features(f"inception={tmp_path / 'other.pth'}")
    missing = tmp_path / "captions.jsonl"
    missing.write_text('{"file_name": "Abyssinian/none.png", "background": "snow", "pose": "sitting"}\n')
    with pytest.raises(FastgenError, match="none.png"):
        evaluate(world / "mixed", captions=missing, probe=world / "world" / "train", **quiet)


def test_command(world, tmp_path):
    words = ["evaluate", world / "mixed", "--real", world / "world" / "train", "--to", tmp_path / "r"]
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0
    assert json.loads((tmp_path / "r" / "report.json").read_text())["fid"]["features"] == "mini-resnet"
