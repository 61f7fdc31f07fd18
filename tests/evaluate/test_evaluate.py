"""`evaluate` from shards to report.json, plots and tables, with small random encoders."""

import io
import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from rich.console import Console

from fastgen.cli import main
from fastgen.errors import DataError, FastgenError, OutputError, ReferenceImageError
from fastgen.evaluate import measure, resnet_distance
from fastgen.evaluate.evaluate import evaluate
from tests.output_folder import make_row, write_output
from tests.tiny_clip import make_tiny_clip
from tests.tiny_resnet import make_tiny_resnet


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    make_tiny_clip(folder / "clip")
    make_tiny_resnet(folder / "resnet")
    return folder


@pytest.fixture(autouse=True)
def mini(models, monkeypatch):
    """Small random networks in place of the embedded ones."""
    for module in (measure, resnet_distance):
        monkeypatch.setattr(module, "MINI", models)


def rows():
    """Five red images of two references, the last one failed; two blue ones without a reference."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(7):
        image = rng.integers(0, 256, (16, 16, 3), np.uint8)
        red = {"ref": {"id": f"red/{i % 2}.png"}, "score": 0.25 + 0.5 * (i % 2)}
        made.append(
            make_row(i, class_="red" if i < 5 else "blue", image=image, status=int(i == 4), **(red if i < 5 else {}))
        )
    return made


def load(ref):
    return Image.new("RGB", (20, 30), "red" if ref.id.endswith("0.png") else "green")


@pytest.fixture
def out(tmp_path):
    return write_output(tmp_path / "out", rows(), per_shard=3)


def run(out, **options):
    stream = io.StringIO()
    report = evaluate(out, console=Console(file=stream, width=100), **{"load_reference": load} | options)
    return report, stream.getvalue()


def test_report_has_every_metric_with_its_pairs(out):
    report, text = run(out)
    assert json.loads((out / "evaluate" / "report.json").read_text()) == report
    metrics = report["metrics"]
    assert list(metrics) == [
        f"{name}_{pairs}" for name in ("clip_i", "resnet_distance") for pairs in ("ref", "class_real", "intra")
    ]
    for name in ("clip_i", "resnet_distance"):
        assert metrics[f"{name}_ref"]["pairs"] == 4
        assert metrics[f"{name}_class_real"]["pairs"] == 8
        assert metrics[f"{name}_intra"]["pairs"] == 6 + 1
        assert metrics[f"{name}_class_real"]["per_class"]["blue"]["mean"] is None
    per_class = metrics["clip_i_intra"]["per_class"]
    expected = (per_class["red"]["mean"] + per_class["blue"]["mean"]) / 2
    assert metrics["clip_i_intra"]["mean"] == pytest.approx(expected)
    assert "clip_i_intra" in text and "note: 1 of 7 rows failed" in text


def test_report_says_where_its_numbers_come_from(out):
    report, _ = run(out)
    assert report["fastgen_report"] == 1
    assert report["bank_sha256"] == report["engine_fingerprints"] == ["test"]
    assert report["encoders"]["resnet_distance"]["side"] == 32
    assert len(report["encoders"]["clip_i"]["sha256"]) == 64
    assert {"fastgen", "torch", "open_clip_torch"} <= report["versions"].keys()
    assert report["counts"] == {
        "rows": 7,
        "images": 6,
        "statuses": {"good": 6, "non_finite": 1},
        "without_reference": 2,
        "reference_missing": 0,
        "references": 2,
    }
    assert report["classes"]["red"] == {"images": 4, "failed": 1, "references": 2}
    assert report["scores"]["references"] == 2 and report["scores"]["mean"] == pytest.approx(0.5)


def test_plots_open(out):
    run(out, to=out / "elsewhere")
    for name in ("clip_i.png", "resnet_distance.png", "scores.png"):
        with Image.open(out / "elsewhere" / name) as image:
            assert image.width > 900


def test_a_second_evaluation_embeds_nothing(out, monkeypatch):
    first, _ = run(out)

    def refuse(*args, **options):
        raise AssertionError("embedded again")

    monkeypatch.setattr("fastgen.clip.ScoringClip._embed", refuse)
    monkeypatch.setattr("fastgen.evaluate.perceptual.stage_vectors", refuse)
    assert run(out)[0] == first


def test_references_that_are_gone_are_counted_and_named(out):
    def gone(ref):
        if ref.id == "red/0.png":
            raise ReferenceImageError("gone")
        return load(ref)

    report, text = run(out, load_reference=gone)
    assert report["counts"]["reference_missing"] == 2
    assert report["missing_references"] == ["red/0.png"]
    assert report["metrics"]["clip_i_ref"]["pairs"] == 2
    assert report["metrics"]["clip_i_intra"]["pairs"] == 7
    assert "red/0.png" in text
    assert run(out, load_reference=None)[0]["metrics"]["clip_i_ref"]["mean"] is None


def test_another_clip_gives_other_numbers(out, tmp_path):
    first, _ = run(out)
    other, _ = run(out, clip=make_tiny_clip(tmp_path / "other", seed=1))
    assert other["metrics"]["clip_i_intra"]["mean"] != first["metrics"]["clip_i_intra"]["mean"]
    assert other["metrics"]["resnet_distance_intra"] == first["metrics"]["resnet_distance_intra"]


@pytest.mark.parametrize(("side", "expected"), [(16, 256), (512, 512)])
def test_lpips_takes_the_place_of_the_embedded_distance(tmp_path, side, expected):
    import torch
    from torchvision import models as torchvision_models

    with torch.random.fork_rng():
        torch.manual_seed(0)
        features = torchvision_models.alexnet(weights=None).features
    file = tmp_path / "alex.pth"
    torch.save({f"features.{name}": value for name, value in features.state_dict().items()}, file)
    rng = np.random.default_rng(0)
    made = [make_row(i, image=rng.integers(0, 256, (side, side, 3), np.uint8)) for i in range(2)]
    out = write_output(tmp_path / "out", made, side=side)
    report, _ = run(out, lpips=f"alex={file}")
    assert report["encoders"]["lpips_alex"]["side"] == expected
    assert report["metrics"]["lpips_alex_intra"]["mean"] > 0
    assert not any(name.startswith("resnet") for name in report["metrics"])
    assert (out / "evaluate" / "lpips_alex.png").is_file()


def test_nothing_good_is_wrong_data(tmp_path):
    out = write_output(tmp_path / "out", [make_row(0, status=2)])
    with pytest.raises(DataError, match=r"none of its 1 rows is good \({'flat': 1}\)"):
        run(out)
    assert not (out / "evaluate").exists()


def test_bad_input_is_named(out, tmp_path):
    with pytest.raises(OutputError, match="no shards"):
        run(tmp_path / "nowhere")
    with pytest.raises(FastgenError, match="lpips is 'squeeze'; it must be alex or vgg"):
        run(out, lpips="squeeze")
    with pytest.raises(FastgenError, match=r"no folder and no model of open_clip"):
        run(out, clip="no-such-clip")


def test_the_command_prints_tables_and_paths_and_maps_errors(out):
    done = CliRunner().invoke(main, ["evaluate", str(out)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "clip_i_intra" in done.output
    assert str(out / "evaluate" / "report.json") in done.output.replace("\n", "")
    # this folder has no plan.json, so that its references cannot be found
    assert "4 images have a reference that was not found" in " ".join(done.output.split())
    wrong = CliRunner().invoke(main, ["evaluate", str(out), "--lpips", "squeeze"], catch_exceptions=False)
    assert wrong.exit_code == 2
    assert wrong.output.startswith("fastgen: lpips is 'squeeze'")
