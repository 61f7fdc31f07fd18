"""Writes docs/dalda: results.json, README.md and the figures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastgen.files import atomic_write_text
from repro.dalda.arms import TABLE, WORLDS
from repro.dalda.figures import write_figures
from repro.dalda.relations import DISTANCE, relations
from repro.dalda.results import Results
from repro.interval import Interval, bootstrap
from repro.relation import Relation, relation_lines, verdict_line

DIVERSITY = ("clip_i_ref", "clip_i_intra", f"{DISTANCE}_ref", f"{DISTANCE}_intra")


def write_report(results: Results, folder: Path, *, command: str, facts: Mapping[str, Any]) -> Path:
    """Writes everything that is derived from the results.

    Args:
        results: of all arms.
        folder: for the files.
        command: that made them.
        facts: about the run: steps, seeds, minutes, hardware.

    Returns:
        path of README.md.
    """
    measured = relations(results)
    tables = {world: _table(results, world) for world in WORLDS}
    figures = write_figures(results, folder)
    content = {
        "command": command,
        **facts,
        "images": results.images,
        "scores": {world: float(results.scores(world).mean()) for world in WORLDS},
        "tables": tables,
        "relations": [relation.to_json() for relation in measured],
    }
    atomic_write_text(folder / "results.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    atomic_write_text(folder / "README.md", _page(content, measured, figures))
    return folder / "README.md"


def _table(results: Results, world: str) -> list[dict[str, Any]]:
    """Real images alone, then every method: diversity and accuracy with intervals."""
    real = {"method": "real alone", "accuracy": bootstrap(results.accuracy(world, "llm-ags", "real")).to_json()}
    rows: list[dict[str, Any]] = [real]
    for arm in (arm for arm in TABLE if results.has(world, arm.name)):
        diversity = {name: bootstrap(results.metric(world, arm.name, name)).to_json() for name in DIVERSITY}
        accuracy = bootstrap(results.accuracy(world, arm.name)).to_json()
        rows.append({"method": arm.title, **diversity, "accuracy": accuracy})
    return rows


def _page(content: Mapping[str, Any], measured: Sequence[Relation], figures: Sequence[Path]) -> str:
    lines = [
        "# DALDA in miniature",
        "",
        f"Written by `{content['command']}`: {content['images']} images, {content['seeds']} seeds, "
        f"{content['steps']} steps of {content['scheduler']}, {content['cpu_minutes']:.0f} CPU minutes on "
        f"{content['hardware']['cores']} cores of {content['hardware']['cpu']}. Numbers: [results.json](results.json).",
        "",
        "HC is PetWorld's 37 breeds, which the embedded CLIP recognises (mean score "
        f"{content['scores']['HC']:.2f}); LC its 12 novel breeds, which neither CLIP nor generator has seen "
        f"({content['scores']['LC']:.2f}). One real picture per class is reference and training set; a linear probe on "
        "the embedded ResNet is tested on fresh pictures. `resnet_distance` stands for LPIPS: its formula over the "
        "embedded ResNet. Brackets are 95 % bootstrap intervals over seeds and classes.",
        "",
        verdict_line(measured),
        "",
        *_tables(content["tables"]),
        "## Relations",
        "",
    ]
    lines += relation_lines(measured)
    lines += ["## Figures", ""]
    lines += [line for path in figures for line in (f"![{path.stem}]({path.name})", "")]
    return "\n".join(lines)


def _tables(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    lines = []
    for world, rows in tables.items():
        lines += [f"## {world}", "", "| method | " + " | ".join(DIVERSITY) + " | accuracy |", "|---" * 6 + "|"]
        for row in rows:
            cells = [Interval(**row[name]).text(3) if name in row else "" for name in DIVERSITY]
            accuracy = Interval(**row["accuracy"]).text(1, factor=100)
            lines.append(f"| {row['method']} | " + " | ".join(cells) + f" | {accuracy} % |")
        lines.append("")
    return lines
