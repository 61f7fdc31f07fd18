"""`fastgen train` and `fastgen sweep` from the command line: every option arrives, and bad ones end with one line."""

import json

import pytest
from click.testing import CliRunner

from fastgen.cli import main
from tests.colour_squares import make_images
from tests.tiny_resnet import make_tiny_resnet


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("cli")
    make_images(root / "real" / "train", 3)
    make_images(root / "real" / "test", 4, start=100)
    make_tiny_resnet(root / "resnet")
    return root


def fastgen(folder, command, *words):
    given = [command, "--real", folder / "real", "--backbone", f"timm/tiny={folder / 'resnet'}", *words]
    return CliRunner().invoke(main, [str(word) for word in given], catch_exceptions=False)


def test_options_reach_the_recipe(folder, tmp_path):
    words = "--tune full --seeds 1 --steps 2 --set lr=1e-2 --set transform=none --set batch=4 --groups 2,2".split()
    result = fastgen(folder, "train", "--out", tmp_path, *words)
    assert result.exit_code == 0, result.output
    assert "macro accuracy" in result.output
    settings = json.loads((tmp_path / "metrics.json").read_text())["settings"]
    found = {name: settings[name] for name in ("tune", "steps", "lr", "transform", "batch", "groups")}
    assert found == {"tune": "full", "steps": 2, "lr": 0.01, "transform": "none", "batch": 4, "groups": [2, 2]}


def test_a_sweep_over_a_given_grid(folder, tmp_path):
    words = "--val test:1 --set transform=none --set epochs=1 --grid lr=1e-2,1e-3 --sweep-epochs 1".split()
    result = fastgen(folder, "sweep", "--out", tmp_path, *words, "--grid", "weight_decay=0")
    assert result.exit_code == 0, result.output
    assert len(json.loads((tmp_path / "sweep.json").read_text())["arms"]["real"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --set lr", "got 'lr'; it must be KEY=VALUE, such as lr=1e-4"),
        ("train --set colour=red", "fastgen: a recipe has no field 'colour'"),
        ("train --groups many", "it must be two whole numbers, such as 20,5"),
        ("train --recipe bill", "fastgen: recipe is 'bill'; it must be one of dalda-paper"),
        ("sweep --val 1 --grid lr=fast", "it must be KEY=V1,V2,... with numbers"),
        ("sweep --val 1 --recipe dalda-paper", "fastgen: recipe dalda-paper has no grid of its own"),
    ],
)
def test_bad_options_end_with_one_line(folder, tmp_path, words, message):
    command, *rest = words.split()
    result = fastgen(folder, command, "--out", tmp_path, *rest)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
