"""One finished and evaluated run, as `fastgen compare` sees it: where it lies on each axis, and what was measured."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastgen.errors import FastgenError
from fastgen.evaluate.diversity_report import REPORT_VERSION
from fastgen.files import read_jsonl

ARM = "real+synthetic"
"""The arm of metrics.json whose accuracy counts."""

AXES = {
    "lambda": "λ, the same for all images",
    "prompts": "sentences per class",
    "shots": "real images per class",
}
"""What runs can be compared against -> how the axis is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRun:
    """What is known of an output folder.

    Attributes:
        out: the folder.
        plan: content of plan.json.
        report: content of report.json.
        metrics: content of metrics.json of `fastgen train`, or None.
        values: axis -> where the run lies on it: the one lambda of all rows (None if they differ or have none), the
            most different prompts of a class, the most different references of a class (None without references).
        methods: `method` of its rows.
    """

    out: Path
    plan: Mapping[str, Any]
    report: Mapping[str, Any]
    metrics: Mapping[str, Any] | None
    values: Mapping[str, float | None]
    methods: tuple[str, ...]

    def facts(self, against: str) -> dict[str, str]:
        """What distinguishes it from other runs beside its seed and its place on the axis."""
        arguments, defaults = self.plan["arguments"], self.plan["header"].get("defaults", {})
        engine = self.plan["engine"]  # that of `fastgen import` is a hash of the images: no line for each
        name = "import" if engine["name"] == "import" else str(engine["fingerprint"])[:8]
        found = {"method": ", ".join(self.methods), "engine": name}
        for name in ("policy", "steps", "guidance", "scheduler"):
            value = arguments.get(name)
            found[name] = str(defaults.get(name, "") if value is None else value)
        found["shots"] = "" if self.values["shots"] is None else f"{self.values['shots']:g}"
        hidden = {"lambda": "policy", "shots": "shots"}.get(against)
        return {name: value for name, value in found.items() if name != hidden}


def read_run(out: Path, train: Path | None) -> FinishedRun:
    """Reads an output folder with `evaluate/report.json` and, if it is there, the training on its images.

    Args:
        out: of `fastgen run`.
        train: folder of `fastgen train` on it; None looks for `out`/train.

    Raises:
        FastgenError: it is no output folder, was not evaluated, or a file cannot be read.
    """
    plan = _object(out / "plan.json", "fastgen_plan", advice="give output folders of `fastgen run`")
    report = _object(out / "evaluate" / "report.json", "fastgen_report", advice=f"run `fastgen evaluate {out}` first")
    if report["fastgen_report"] != REPORT_VERSION:
        raise FastgenError(f"{out}/evaluate/report.json: version {report['fastgen_report']}; evaluate {out} again")
    place = train if train is not None else out / "train"
    metrics = None
    if train is not None or (place / "metrics.json").is_file():
        advice = f"run `fastgen train --synthetic {out} --out {place}` first"
        metrics = _object(place / "metrics.json", "fastgen_metrics", advice=advice)
        if ARM not in metrics["arms"]:
            raise FastgenError(f"{place}/metrics.json: has no synthetic images; {advice}")
    lambdas: set[float | None] = set()
    prompts, references = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    methods: dict[str, None] = {}
    for row in read_jsonl(out / "plan.jsonl"):
        lambdas.add(row.get("lambda"))
        prompts[row["class"]].add(row["prompt"])
        if row.get("ref"):
            references[row["class"]].add(row["ref"]["id"])
        methods[row.get("method") or ""] = None
    values = {
        "lambda": next(iter(lambdas)) if len(lambdas) == 1 else None,
        "prompts": float(max(map(len, prompts.values()), default=0)),
        "shots": float(max(map(len, references.values()))) if references else None,
    }
    return FinishedRun(out=out, plan=plan, report=report, metrics=metrics, values=values, methods=tuple(methods))


def _object(path: Path, version: str, *, advice: str) -> dict[str, Any]:
    """A JSON file that fastgen wrote."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FastgenError(f"{path}: there is no such file; {advice}") from None
    except (OSError, ValueError) as error:
        raise FastgenError(f"{path}: cannot be read ({error}); {advice}") from error
    if not isinstance(found, dict) or version not in found:
        raise FastgenError(f"{path}: is not what fastgen wrote there (no {version}); {advice}")
    return found
