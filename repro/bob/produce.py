"""Makes the images of one arm with one seed, and measures them; what is finished is not made again."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from fastgen.engine.build import build
from fastgen.engine.load import load_engine
from fastgen.errors import DataError
from fastgen.evaluate.evaluate import evaluate
from fastgen.files import atomic_write_text, sha256_file, sha256_json
from fastgen.finetune.lora import lora as finetune
from fastgen.petworld.dataset import export
from fastgen.production.run import run
from fastgen.train.command import train
from repro.bob.arms import COPIES, GROUPS, LONG_TAIL, SHOTS, Arm, Lora
from repro.bob.banks import DESCRIPTOR, LORA, write_arm_bank

SCHEDULER = "unipc"
"""8 steps of it look like 25 of DDIM (bench/NOTES.md)."""
CONFOUNDING = 0.9
"""Share of a class's real pictures that stand in the class's own background and pose."""
REALISM = (0.0, 0.15)
"""Like the pictures that the generator was trained with: breeds are what fine-tuning has to learn, not their look."""
BACKBONE = "mini-clip"
"""Of the classifier: it sees backgrounds and poses well, and breeds that it does not know badly."""
REAL_WEIGHT = 0.8
"""Of real pictures in the classifier's loss: DataDream's, and one of the two that BOB chooses from."""
WHOLE = 40
"""Pictures of each class that stand for all real pictures: of FID, and those that the context probe is fitted to."""
WHOLE_SEED = 1000
FINETUNING: dict[str, Any] = {"batch": 8, "lr": 2e-3, "schedule": "cosine", "words": True, "init_word": "cat"}
"""In place of batch 80 and 1e-4: the embedded model is small, and so is the budget. Words, because its text encoder has
never seen the names: two of them change its output by a tenth of what two known breeds do."""
WARMUP = 0.05
"""Share of the steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all arms share.

    Attributes:
        work: the folder.
        per_class: generated images of each class.
        steps: denoising steps of every image.
        training: length of the fine-tunings as a share of `arms.STEPS`.
        test_per_class: test pictures of a class.
    """

    work: Path
    per_class: int
    steps: int
    training: float
    test_per_class: int


def produce(arm: Arm, seed: int, setting: Setting) -> dict[str, Any]:
    """Fine-tunes, builds, runs, evaluates and trains one arm.

    Args:
        arm: which.
        seed: of the real pictures and of everything else.
        setting: the same for all.

    Returns:
        `accuracy` (of `real` and `real+synthetic`: macro, and in the long tail `many`, `medium`, `few`), and of
        measured arms `fid` (class -> distance) and `context` (attribute -> `information`: nats above chance, `right`:
        share of the images that show what their prompt asks for, or None).

    Raises:
        DataError: if a row failed.
    """
    folder = setting.work / f"seed{seed}" / arm.name
    path = folder / "result.json"
    data = real_pictures(setting, seed, split=arm.split)
    bank = write_arm_bank(
        arm, data, folder / f"{arm.name}.jsonl", per_class=setting.per_class, steps=setting.steps,
        scheduler=SCHEDULER, seed=seed,
    )  # fmt: skip
    key = sha256_json([sha256_file(bank), str(arm), str(setting), FINETUNING, WARMUP, REAL_WEIGHT])
    if path.is_file() and (result := json.loads(path.read_text(encoding="utf-8")))["key"] == key:
        return result
    engine = load_engine(_engine(arm.lora, data, seed, setting))
    refs: dict[str, Any] = {} if arm.method in ("bob", "diff-gen") else {"refs": data / "train", "shots": SHOTS}
    report = run(bank, engine=engine, seed=seed, out=folder / "run", **refs)
    if report.failures:
        raise DataError(f"{folder / 'run'}: " + "\n".join(report.failures))
    result = {"key": key, "arm": arm.name, "seed": seed, "images": report.rows}
    result["accuracy"] = accuracy(data, folder, synthetic=folder / "run", long_tail=arm.split == "long-tail")
    if arm.measured:
        result |= _measure(folder, setting)
    atomic_write_text(path, json.dumps(result, allow_nan=False) + "\n")
    return result


def real_alone(shots: int, seed: int, setting: Setting) -> dict[str, Any]:
    """A classifier on real pictures alone, with more of them than the arms have."""
    folder = setting.work / f"seed{seed}" / f"real-{shots}"
    data = real_pictures(setting, seed, split="confounded", per_class=shots)
    return {"arm": f"real-{shots}", "seed": seed, "images": 0, "accuracy": accuracy(data, folder)}


def real_pictures(setting: Setting, seed: int, *, split: str, per_class: int | None = None) -> Path:
    """A PetWorld folder of the novel breeds; more pictures of a seed contain the fewer."""
    count = per_class or (LONG_TAIL if split == "long-tail" else SHOTS)
    shape: dict[str, Any] = {"imbalance": float(LONG_TAIL)} if split == "long-tail" else {"confounding": CONFOUNDING}
    return export(
        setting.work / f"seed{seed}" / f"{split}-{count}", classes="novel", split=split, per_class=count, seed=seed,
        realism=REALISM, test_per_class=setting.test_per_class, say=lambda line: None, **shape,
    )  # fmt: skip


def accuracy(
    data: Path, folder: Path, *, synthetic: Path | None = None, long_tail: bool = False
) -> dict[str, dict[str, float]]:
    """Accuracy of a linear probe on the embedded CLIP; the same head and the same draws in all arms of a seed.

    Real pictures are repeated until they are half of the pool (section 3.3) and weigh `REAL_WEIGHT`, but in the long
    tail: there every class has as many pictures, and a real one weighs as much as a generated one (appendix).
    """
    weights: dict[str, Any] = {"real_repeat": COPIES} if long_tail else {"real_weight": REAL_WEIGHT}
    pooled = {"head": "linear", **weights}
    groups = GROUPS if long_tail else None
    metrics = train(
        data, synthetic=synthetic, out=folder / "train", backbone=BACKBONE, seeds=1, mix="replicate", settings=pooled,
        groups=groups, cache=data.parent / f"features-{data.name}",
    )  # fmt: skip
    names = ["macro", *(["many", "medium", "few"] if long_tail else [])]
    return {
        arm: {name: entry["seeds"][0][f"accuracy_{name}"] for name in names} for arm, entry in metrics["arms"].items()
    }


def _engine(lora: Lora | None, data: Path, seed: int, setting: Setting) -> Path:
    """The embedded model with the arm's fine-tuning, which all its arms share."""
    if lora is None:
        return build("mini", out=setting.work / "engine", say=lambda line: None)
    folder = setting.work / f"seed{seed}" / f"lora-{lora.name}"
    steps = max(2, round(lora.steps * setting.training))
    more: dict[str, Any] = {} if lora.preserve is None else {"preserve": lora.preserve}
    finetune(
        data, out=folder, profile=lora.profile, descriptor=DESCRIPTOR, steps=steps, warmup=int(steps * WARMUP),
        seed=seed, sample_every=0 if seed else steps, **more, **FINETUNING,
    )  # fmt: skip
    return build(
        "mini",
        lora=[f"{LORA}={folder}"],
        embedding=[str(folder / "words")],
        out=folder.with_name(f"engine-{lora.name}"),
        say=lambda line: None,
    )


def _measure(folder: Path, setting: Setting) -> dict[str, Any]:
    whole = export(
        setting.work / "whole", classes="novel", per_class=WHOLE, test_per_class=1, realism=REALISM, seed=WHOLE_SEED,
        say=lambda line: None,
    )  # fmt: skip
    report = evaluate(
        folder / "run", real=whole / "train", captions=whole / "train" / "metadata.jsonl", to=folder / "evaluate",
        console=Console(quiet=True),
    )  # fmt: skip
    context = {
        name: {
            "information": one["independence"]["mutual_information"] - one["independence"]["bias"],
            "right": one["requested"]["right"],
            "probe": one["accuracy"],
        }
        for name, one in report["context"]["attributes"].items()
    }
    fid = {name: one["fid"] for name, one in report["fid"]["per_class"].items()}
    return {"fid": fid, "context": context, "clip_i_intra": report["metrics"]["clip_i_intra"]["mean"]}
