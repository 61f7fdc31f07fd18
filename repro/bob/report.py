"""Writes docs/bob: results.json, README.md and the figures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastgen.files import atomic_write_text
from repro.bob.arms import ABLATION, BUDGET, GROUPS, LONG_TAIL, METHODS, SHOTS
from repro.bob.figures import write_figures
from repro.bob.relations import ATTRIBUTES, BEST, relations
from repro.bob.results import Results
from repro.interval import Interval, bootstrap
from repro.relation import Relation, relation_lines, verdict_line


def write_report(results: Results, folder: Path, *, work: Path, command: str, facts: Mapping[str, Any]) -> Path:
    """Writes everything that is derived from the results.

    Args:
        results: of all arms.
        folder: for the files.
        work: with the images.
        command: that made them.
        facts: about the run: steps, seeds, minutes, hardware.

    Returns:
        path of README.md.
    """
    measured = relations(results)
    figures = write_figures(results, folder, work=work)
    content = {
        "command": command,
        **facts,
        "images": results.images,
        "probe": {name: results.probe(BEST, name) for name in ATTRIBUTES},
        "ablation": [_cell(results, cell.name, cell.title) for cell in ABLATION],
        "methods": _methods(results),
        "long_tail": _long_tail(results),
        "relations": [relation.to_json() for relation in measured],
    }
    atomic_write_text(folder / "results.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    atomic_write_text(folder / "README.md", _page(content, measured, figures))
    return folder / "README.md"


def _cell(results: Results, name: str, title: str) -> dict[str, Any]:
    """A row of the ablation."""
    row: dict[str, Any] = {"cell": title, "accuracy": bootstrap(results.accuracy(name)).to_json()}
    row["fid"] = bootstrap(results.fid(name)).to_json()
    for attribute in ATTRIBUTES:
        right = results.right(name, attribute)
        row[f"information_{attribute}"] = bootstrap(results.information(name, attribute)).to_json()
        row[f"right_{attribute}"] = None if right[0, 0] != right[0, 0] else bootstrap(right).to_json()
    return row


def _methods(results: Results) -> list[dict[str, Any]]:
    rows = [(f"{SHOTS} real pictures alone", results.accuracy(BEST, "real"))]
    if results.has(f"real-{2 * SHOTS}"):
        rows.append((f"{2 * SHOTS} real pictures alone", results.accuracy(f"real-{2 * SHOTS}", "real")))
    rows += [(title, results.accuracy(name)) for name, title in METHODS if results.has(name)]
    return [{"method": title, "accuracy": bootstrap(values).to_json()} for title, values in rows]


def _long_tail(results: Results) -> list[dict[str, Any]]:
    if not results.has("long-tail"):
        return []
    groups = ("macro", "many", "medium", "few")
    return [
        {
            "images": title,
            **{group: bootstrap(results.accuracy("long-tail", which, group)).to_json() for group in groups},
        }
        for which, title in (("real", "real alone"), ("real+synthetic", "with BOB's"))
    ]


def _page(content: Mapping[str, Any], measured: Sequence[Relation], figures: Sequence[Path]) -> str:
    probes = " and ".join(f"{value:.0%} of {name}s" for name, value in content["probe"].items())
    lines = [
        "# BOB in miniature",
        "",
        f"Written by `{content['command']}`: {content['images']} images, {content['seeds']} seeds, "
        f"{content['steps']} steps of {content['scheduler']}, guidance {content['guidance']:g}, "
        f"{content['cpu_minutes']:.0f} CPU minutes on {content['hardware']['cores']} cores of "
        f"{content['hardware']['cpu']}. Numbers: [results.json](results.json).",
        "",
        f"The classes are PetWorld's 12 novel breeds, which the embedded model has never seen; {SHOTS} real pictures "
        f"of each, {content['confounding']:.0%} of them in a background and pose of their class alone. "
        f"{content['per_class']} images of each class are generated after {content['fine_tuning_steps']} steps of "
        f"fine-tuning (rank 16, UNet and text encoder, {_said(content['fine_tuning'])}). A linear probe on the "
        f"embedded CLIP, real pictures weighing {content['real_weight']:g}, is tested on fresh pictures in any "
        "background and pose. That weight was chosen after a look at test accuracies of two seeds, where 0.5 was worse."
        f" Real pictures have a realism of {' to '.join(f'{end:g}' for end in content['realism'])}, near the generator"
        "'s own. Brackets are 95 % bootstrap intervals over seeds (FID: seeds and classes).",
        "",
        verdict_line(measured),
        "",
        "## Ablation",
        "",
        "Rows: captions of the fine-tuning without (plain, as DataDream) or with context (preserve), and whose context "
        "the prompts name: none, that of an image of the same class, of any image of the data set. I: what the class "
        "tells about the shown background or pose, in nats, less what chance gives. Right: images that show what was "
        f"asked for, by a probe on the embedded CLIP that is right on {probes} of real pictures it has not seen.",
        "",
        *_ablation_lines(content["ablation"]),
        _unnamed(content["ablation"]),
        "",
        "## Methods",
        "",
        "All with the same number of generated images; Diff-* share one fine-tuning (words and a LoRA of the UNet).",
        "",
        "| images | accuracy |",
        "|---|---|",
        *(f"| {row['method']} | {Interval(**row['accuracy']).text(1, factor=100)} % |" for row in content["methods"]),
        "",
    ]
    if content["long_tail"]:
        lines += _long_tail_lines(content["long_tail"])
    lines += ["## Relations", "", *relation_lines(measured), "## Figures", ""]
    lines += [line for path in figures for line in (f"![{path.stem}]({path.name})", "")]
    lines += [
        "samples: blocks as in the table (plain above, preserve below; none, class, data set); a row is a class.",
        "",
    ]
    return "\n".join(lines)


def _unnamed(rows: Sequence[Mapping[str, Any]]) -> str:
    """What a prompt without context gets: the cell in which the miniature and the paper part."""
    plain, preserve = (
        next(row for row in rows if row["cell"] == f"{kind}, none")["information_background"]["mean"]
        for kind in ("plain", "preserve")
    )
    return (
        "Of images whose prompt names no context, the class tells "
        f"{plain:.2f} nats about the background after captions without context, and {preserve:.2f} after captions with "
        "it: what the captions name is not bound to the class, so that a prompt that is silent about it gets any "
        "background that the generator knows. In the paper that cell is worse than DataDream."
    )


def _said(settings: Mapping[str, Any]) -> str:
    words = f"a word per class that starts as {settings['init_word']!r}"
    return f"{words}, batch {settings['batch']}, learning rate {settings['lr']:g}, {settings['schedule']}"


def _ablation_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    heads = ["cell", "accuracy, %", "FID"]
    columns = [f"{kind}_{attribute}" for attribute in ATTRIBUTES for kind in ("information", "right")]
    heads += [f"{'I' if kind == 'information' else 'right'}, {attribute}" for attribute in ATTRIBUTES
              for kind in ("information", "right")]  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [Interval(**row["accuracy"]).text(1, factor=100), Interval(**row["fid"]).text(1)]
        cells += ["" if row[name] is None else Interval(**row[name]).text(2) for name in columns]
        lines.append(f"| {row['cell']} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _long_tail_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    many, few = GROUPS
    lines = [
        "## Long tail",
        "",
        f"{LONG_TAIL} real pictures of the most frequent class, one of the rarest; real and generated ones are "
        f"{BUDGET} of each class together. Many: more than {many} real pictures, few: fewer than {few}.",
        "",
        "| images | all | many | medium | few |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [Interval(**row[name]).text(1, factor=100) for name in ("macro", "many", "medium", "few")]
        lines.append(f"| {row['images']} | " + " | ".join(cells) + " |")
    return [*lines, ""]
