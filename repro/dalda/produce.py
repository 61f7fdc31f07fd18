"""Makes the images of one arm in one world with one seed, and measures them; what is finished is not made again."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from fastgen.engine.build import build
from fastgen.engine.load import Engine, load_engine
from fastgen.errors import DataError
from fastgen.evaluate.evaluate import evaluate
from fastgen.files import atomic_write_text, sha256_file, sha256_json
from fastgen.finetune.textual_inversion import textual_inversion
from fastgen.petworld.dataset import export
from fastgen.production.references import reference_loader
from fastgen.production.run import run
from fastgen.shards.read import open_output
from fastgen.train.command import train
from repro.dalda.arms import WORLDS, Arm
from repro.dalda.banks import write_arm_bank

SCHEDULER = "unipc"
"""8 steps of it look like 25 of DDIM (bench/NOTES.md)."""
WORD_LR = 1e-2
"""Five times DA-Fusion's rate, for far fewer steps: Adam moves a vector by about the rate in every step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all arms share.

    Attributes:
        work: the folder.
        engine: engine folder.
        steps: denoising steps of every image.
        word_steps: training steps of a word of DA-Fusion.
        test_per_class: test pictures of a class.
    """

    work: Path
    engine: Path
    steps: int
    word_steps: int
    test_per_class: int


def produce(arm: Arm, world: str, seed: int, setting: Setting) -> dict[str, Any]:
    """Runs, evaluates and trains one arm.

    Args:
        arm: which.
        world: HC or LC.
        seed: of the real pictures and of the run.
        setting: the same for all.

    Returns:
        `metrics` (`<measure>_<pair set>` -> `mean`, `per_class`), `scores` per class, `lambdas` (per row: score, mu,
        sigma, lambda), macro `accuracy` of `real` and `real+synthetic`.

    Raises:
        DataError: if a row failed.
    """
    folder = setting.work / world / f"seed{seed}" / arm.name
    path = folder / "result.json"
    bank = write_arm_bank(arm, world, folder / f"{arm.name}.jsonl", seed=seed)
    key = _key(arm, bank, setting)
    if path.is_file() and (result := json.loads(path.read_text(encoding="utf-8")))["key"] == key:
        return result
    data = export(
        folder.parent / f"data-{arm.shots}", classes=WORLDS[world][0], split="few-shot", shots=arm.shots,
        test_per_class=setting.test_per_class, seed=seed, say=lambda _: None,
    )  # fmt: skip
    engine = _engine_with_words(data, folder, setting, seed) if arm.prompts == "da-fusion" else _loaded(setting.engine)
    report = run(
        bank, engine=engine, refs=data / "train", shots=arm.shots, policy=arm.policy, seed=seed,
        steps=setting.steps, scheduler=SCHEDULER, out=folder / "run",
    )  # fmt: skip
    if report.failures:
        raise DataError(f"{folder / 'run'}: " + "\n".join(report.failures))
    about = {"key": key, "arm": arm.name, "world": world, "seed": seed, "images": report.rows}
    result = {**about, **_measure(folder)}
    result["accuracy"] = _accuracy(folder, data) if world in arm.trained else {}
    atomic_write_text(path, json.dumps(result, allow_nan=False) + "\n")
    return result


@cache
def _loaded(engine: Path) -> Engine:
    """The engine of all arms but DA-Fusion's, loaded once."""
    return load_engine(engine)


def _engine_with_words(data: Path, folder: Path, setting: Setting, seed: int) -> Engine:
    """The embedded model with a word for every class, learnt from the arm's real pictures (DA-Fusion)."""
    words = textual_inversion(
        data / "train",
        out=folder / "words",
        steps=setting.word_steps,
        lr=WORD_LR,
        seed=seed,
        samples=False,
        say=lambda _: None,
    )
    return load_engine(build("mini", embedding=[str(words)], out=folder / "engine", say=lambda _: None))


def _key(arm: Arm, bank: Path, setting: Setting) -> str:
    engine = json.loads((setting.engine / "engine.json").read_text(encoding="utf-8"))["fingerprint"]
    return sha256_json([sha256_file(bank), engine, str(arm), setting.steps, setting.word_steps, SCHEDULER])


def _measure(folder: Path) -> dict[str, Any]:
    out, quiet = folder / "run", Console(quiet=True)
    report = evaluate(out, load_reference=reference_loader(out), to=folder / "evaluate", console=quiet)
    return {
        "metrics": {
            name: {"mean": entry["mean"], "per_class": {c: v["mean"] for c, v in entry["per_class"].items()}}
            for name, entry in report["metrics"].items()
        },
        "scores": {name: entry["mean"] for name, entry in report["scores"]["per_class"].items()},
        "lambdas": _lambdas(out),
    }


def _accuracy(folder: Path, data: Path) -> dict[str, float]:
    """Macro accuracy with and without the arm's images; one head each, of the same seed for all arms."""
    cache = data.parent / f"features-{data.name}"
    metrics = train(data, synthetic=folder / "run", out=folder / "train", seeds=1, cache=cache)
    return {name: entry["seeds"][0]["accuracy_macro"] for name, entry in metrics["arms"].items()}


def _lambdas(out: Path) -> list[list[float]]:
    """Score, mu, sigma and lambda of every row that AGS weighted, (N, 4)."""
    output = open_output(out)
    names = ("clip_score", "lambda_mu", "lambda_sigma", "lambda")
    values = np.stack([np.asarray(output.column(name), np.float64) for name in names], axis=1)
    return values[np.isfinite(values).all(axis=1)].tolist()
