"""The paper's figures 4 and 6 to 9 in miniature."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fastgen.evaluate.curves import Curve, Panel, Point, curves_figure
from fastgen.evaluate.histogram import STYLE, png
from fastgen.files import atomic_write_bytes
from repro.dalda.arms import LAMBDAS, PROMPTS, SHOTS, WORLDS
from repro.dalda.relations import ALPHA, DISTANCE
from repro.dalda.results import Results
from repro.interval import bootstrap

COLOURS = {"HC": "#2f6fb0", "LC": "#d9822b", "Real Guidance": "#4f9d69", "LLM + AGS": "#2f6fb0"}
TITLES = {
    "accuracy": "Accuracy",
    f"{DISTANCE}_intra": "Distance among images",
    f"{DISTANCE}_ref": "Distance to the reference",
    "clip_i_ref": "CLIP-I to the reference",
}


def write_figures(results: Results, folder: Path) -> list[Path]:
    """Writes scores.png, lambda.png, prompts.png and shots.png; those that were not measured are left out."""
    figures = {"scores": _scores(results)}
    lambdas = [f"lambda-{value:g}" for value in LAMBDAS]
    if results.has("HC", lambdas[0]):
        series = {world: (world, lambdas) for world in WORLDS}
        figures["lambda"] = _curves(results, series, LAMBDAS, "λ, the same for all images")
    if results.has("HC", "prompts-1"):
        names = [f"prompts-{count}" for count in PROMPTS]
        figures["prompts"] = _curves(results, {"HC": ("HC", names)}, PROMPTS, "sentences per class")
    if results.has("HC", "llm-ags-1-shots"):
        counts = SHOTS
        series = {
            title: ("HC", [f"{name}-{count}-shots" for count in counts])
            for title, name in (("Real Guidance", "real-guidance"), ("LLM + AGS", "llm-ags"))
            if results.has("HC", f"{name}-1-shots")
        }
        figures["shots"] = _curves(results, series, counts, "real images per class", real=True)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        atomic_write_bytes(paths[-1], png(figure))
    return paths


def _scores(results: Results) -> Figure:
    """How well CLIP recognises the references of both worlds (Fig. 4)."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.subplots()
        for world in WORLDS:
            scores = results.scores(world).ravel()
            label = f"{world}: {scores.size} references, mean {scores.mean():.2f}"
            axes.hist(scores, bins=np.linspace(0, 1, 21).tolist(), color=COLOURS[world], alpha=0.75, label=label)
        axes.axvline(ALPHA, color="#1c1e21", linewidth=1, linestyle="--")
        axes.set(xlabel="CLIP score of the reference; dashed: AGS' threshold", ylabel="references")
        axes.set_title("Scores")
        axes.legend(loc="upper center")
    return figure


def _curves(
    results: Results,
    series: Mapping[str, tuple[str, Sequence[str]]],
    x: Sequence[float],
    label: str,
    *,
    real: bool = False,
) -> Figure:
    """Accuracy and diversity of some arms against x, with 95 % bootstrap intervals."""
    panels = []
    for name, panel_title in TITLES.items():
        curves = [
            _curve(results, name, world=world, arms=arms, x=x, title=title) for title, (world, arms) in series.items()
        ]
        if real and name == "accuracy":
            world, arms = next(iter(series.values()))
            means = [float(results.accuracy(world, arm, "real").mean()) for arm in arms]
            curves.append(Curve("real alone", "#8a9099", [Point(*pair) for pair in zip(x, means, strict=True)]))
        if any(curve.points for curve in curves):  # of one image per class there is no distance among them
            panels.append(Panel(panel_title, curves))
    return curves_figure(panels, x_label=label, ticks=x, columns=len(panels))


def _curve(results: Results, name: str, *, world: str, arms: Sequence[str], x: Sequence[float], title: str) -> Curve:
    values = [results.accuracy(world, a) if name == "accuracy" else results.metric(world, a, name) for a in arms]
    measured = [(at, bootstrap(value)) for at, value in zip(x, values, strict=True) if np.isfinite(value).any()]
    return Curve(title, COLOURS[title], [Point(at, m.mean, m.low, m.high) for at, m in measured])
