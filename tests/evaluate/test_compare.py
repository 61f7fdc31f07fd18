"""Figures over several runs: where each run lies, which line it belongs to, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from rich.console import Console
from scipy import stats

from fastgen.cli import main
from fastgen.errors import FastgenError
from fastgen.evaluate.compare import REAL, compare
from fastgen.evaluate.curves import Curve, Panel, Point, curves_figure
from fastgen.evaluate.histogram import png

CLASSES = ("blue", "red")


def make_run(
    out: Path,
    *,
    clip: float = 0.5,
    policy: str | None = "0.5",
    lambdas: tuple[float | None, ...] = (0.5,),
    prompts: int = 2,
    shots: int = 1,
    method: str | None = "dalda",
    seed: int = 0,
    accuracy: float | None = None,
    sha256: str = "a" * 64,
) -> Path:
    """The files of a run that `compare` reads, with the entries that their writers give them."""
    rows = [
        {"class": class_, "prompt": f"a {class_} square {prompt}", "lambda": lambdas[(shot + prompt) % len(lambdas)],
         "ref": {"id": f"{class_}/{shot}.png", "role": ["ip"]}} | ({"method": method} if method else {})
        for class_ in CLASSES for shot in range(shots) for prompt in range(prompts)
    ]  # fmt: skip
    arguments = {"policy": policy, "steps": None, "guidance": None, "scheduler": None, "shots": shots}
    header = {"name": out.name, "classes": list(CLASSES), "defaults": {"policy": "ags", "steps": 25}}
    plan = {"fastgen_plan": 1, "header": header, "bank": {"sha256": "b" * 64}, "arguments": arguments, "seed": seed,
            "engine": {"name": "tiny", "fingerprint": "c" * 64}}  # fmt: skip
    metrics = {f"clip_i_{pair_set}": {"mean": clip + step} for pair_set, step in (("ref", 0.1), ("class_real", 0.1))}
    metrics |= {"clip_i_intra": {"mean": clip}, "resnet_distance_ref": {"mean": None}}
    metrics |= {f"resnet_distance_{pair_set}": {"mean": 1 - clip} for pair_set in ("class_real", "intra")}
    encoders = {name: {"model": "mini", "sha256": sha256} for name in ("clip_i", "resnet_distance")}
    out.mkdir(parents=True)
    (out / "plan.json").write_text(json.dumps(plan))
    (out / "plan.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (out / "evaluate").mkdir()
    (out / "evaluate" / "report.json").write_text(
        json.dumps({"fastgen_report": 1, "encoders": encoders, "metrics": metrics})
    )
    if accuracy is not None:
        make_training(out / "train", accuracy)
    return out


def make_training(folder: Path, accuracy: float) -> Path:
    arm = {"mean": accuracy, "std": 0.01, "ci95": [accuracy - 0.02, accuracy + 0.02], "n": 5}
    arms = {"real": {"accuracy_macro": arm | {"mean": 0.2}}, "real+synthetic": {"accuracy_macro": arm}}
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"fastgen_metrics": 1, "arms": arms}))
    return folder


def quietly(runs: list[Path], *, out: Path, **options: Any) -> dict[str, list[Curve]]:
    return compare(runs, out=out, console=Console(quiet=True), **options)


def shown(curves: list[Curve]) -> dict[str, dict[float, float]]:
    return {curve.label: {point.x: round(point.mean, 6) for point in curve.points} for curve in curves}


def test_lambda_is_read_from_the_rows_and_each_measure_has_its_panel(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / f"l{value}", clip=0.4 + value / 2, lambdas=(value,), accuracy=0.3 + value / 10)
        for value in (1.0, 0.0, 0.5)
    ]
    found = quietly(runs, against="lambda", out=tmp_path / "f.png")
    assert list(found) == ["Accuracy", "CLIP-I to the reference", "CLIP-I among images", "Distance among images"]
    assert shown(found["Accuracy"]) == {"dalda": {0.0: 30, 0.5: 35, 1.0: 40}, REAL: {0.0: 20, 0.5: 20, 1.0: 20}}
    assert shown(found["CLIP-I to the reference"]) == {"dalda": {0.0: 0.5, 0.5: 0.75, 1.0: 1.0}}
    first = found["Accuracy"][0].points[0]
    assert (first.low, first.high) == (pytest.approx(28), pytest.approx(32))
    assert all(point.low is None for point in found["CLIP-I among images"][0].points)
    with Image.open(tmp_path / "f.png") as image:
        assert image.format == "PNG" and image.width > 900


def test_prompts_and_shots_are_those_of_the_largest_class(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"p{n}", prompts=n) for n in (1, 5)]
    found = quietly(runs, against="prompts", out=tmp_path / "p.png")["CLIP-I among images"]
    assert shown(found) == {"dalda": {1: 0.5, 5: 0.5}}
    runs = [make_run(tmp_path / f"s{n}", shots=n, policy=None, lambdas=(0.1, 0.2)) for n in (1, 4)]
    found = quietly(runs, against="shots", out=tmp_path / "s.png")["CLIP-I among images"]
    assert shown(found) == {"dalda": {1: 0.5, 4: 0.5}}


def test_methods_are_lines_and_seeds_are_one_line_with_an_interval(tmp_path: Path) -> None:
    values = {("dalda", 1): (0.5, 0.6, 0.61), ("dalda", 2): (0.4, 0.5, 0.45), ("real_guidance", 1): (0.8,)}
    runs = [
        make_run(tmp_path / f"{method}-{shots}-{seed}", method=method, shots=shots, seed=seed, clip=clip)
        for (method, shots), clips in values.items()
        for seed, clip in enumerate(clips)
    ]
    found = quietly(runs, against="shots", out=tmp_path / "f.png")["CLIP-I among images"]
    assert [curve.label for curve in found] == ["dalda", "real_guidance"]
    assert len({curve.colour for curve in found}) == 2
    for point, clips in zip(found[0].points, list(values.values())[:2], strict=True):
        low, high = stats.t.interval(0.95, 2, loc=np.mean(clips), scale=stats.sem(clips))
        assert (point.mean, point.low, point.high) == pytest.approx((np.mean(clips), low, high))
    assert found[1].points[0].low is None


def test_whatever_else_differs_makes_another_line(tmp_path: Path) -> None:
    ags = make_run(tmp_path / "ags", policy="ags", lambdas=(0.1, 0.3))
    uniform = make_run(tmp_path / "uniform", policy="uniform", lambdas=(0.2, 0.9), shots=2)
    found = quietly([ags, uniform], against="shots", out=tmp_path / "f.png")
    assert list(shown(found["CLIP-I among images"])) == ["policy ags", "policy uniform"]


def test_trainings_may_be_named_one_for_each_run(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"s{n}", shots=n) for n in (1, 2)]
    trainings = [make_training(tmp_path / f"t{n}", 0.3 + n / 10) for n in (1, 2)]
    found = quietly(runs, against="shots", out=tmp_path / "f.png", train=trainings)
    assert shown(found["Accuracy"])["dalda"] == {1: 40, 2: 50}
    with pytest.raises(FastgenError, match="got 1 folders of trainings for 2 runs; give one for each, or none"):
        quietly(runs, against="shots", out=tmp_path / "f.png", train=trainings[:1])
    (trainings[0] / "metrics.json").write_text(json.dumps({"fastgen_metrics": 1, "arms": {"real": {}}}))
    with pytest.raises(FastgenError, match="has no synthetic images; run `fastgen train --synthetic"):
        quietly(runs, against="shots", out=tmp_path / "f.png", train=trainings)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    one, drawn = make_run(tmp_path / "one"), make_run(tmp_path / "ags", policy="ags", lambdas=(0.1, 0.2))
    other = make_run(tmp_path / "other", seed=1, sha256="d" * 64)
    twin = make_run(tmp_path / "x" / "one")
    refusals = {
        "give at least two to compare": ([one], "lambda"),
        "against is 'steps'; it must be one of lambda, prompts, shots": ([one, other], "steps"),
        "its rows do not share one lambda; make runs with --policy NUMBER": ([one, drawn], "lambda"),
        "is the same run as": ([one, twin], "lambda"),
        "was measured by other encoders .*the same names, but other weights": ([one, other], "lambda"),
        "plan.json: there is no such file; give output folders": ([one, tmp_path], "lambda"),
    }
    for message, (runs, against) in refusals.items():
        with pytest.raises(FastgenError, match=message):
            quietly(runs, against=against, out=tmp_path / "f.png")
    (twin / "evaluate" / "report.json").unlink()
    with pytest.raises(FastgenError, match="report.json: there is no such file; run `fastgen evaluate .*one` first"):
        quietly([other, twin], against="lambda", out=tmp_path / "f.png")
    with pytest.raises(FastgenError, match="ending in .png"):
        quietly([one, drawn], against="shots", out=tmp_path / "f.pdf")
    assert not (tmp_path / "f.png").exists()


def test_command_prints_the_numbers_and_the_figure(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"s{n}", shots=n, accuracy=0.3) for n in (1, 2)]
    words = ["compare", *map(str, runs), "--against", "shots", "--out", str(tmp_path / "f.png")]
    result = CliRunner().invoke(main, words, env={"COLUMNS": "200"}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "30.0 [28.0, 32.0]" in result.stdout and result.stdout.endswith("f.png\n")
    assert CliRunner().invoke(main, [*words[:2], "--against", "shots", "--out", "f.png"]).exit_code == 2


def test_a_band_needs_two_points_and_one_point_gets_a_bar() -> None:
    band = Curve("band", "#2f6fb0", [Point(0, 1, 0.5, 1.5), Point(1, 2, 1.5, 2.5)])
    bar = Curve("bar", "#d9822b", [Point(0, 1, 0.5, 1.5), Point(1, 2)])
    axes = curves_figure([Panel("a", [band, bar])], x_label="x", ticks=[0, 1], columns=3).axes[0]
    assert [type(one).__name__ for one in axes.collections] == ["FillBetweenPolyCollection", "LineCollection"]
    five = curves_figure([Panel(str(i), [band]) for i in range(5)], x_label="x", ticks=[0, 1], columns=3)
    assert [axes.axison for axes in five.axes] == [True] * 5 + [False]
    assert png(five).startswith(b"\x89PNG")
