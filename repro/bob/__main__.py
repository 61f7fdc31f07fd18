"""Measures BOB's ablation and relations in PetWorld: `python -m repro.bob --work out/bob`.

Stops and resumes anywhere; an arm that is finished is not made again. The ablation of all seeds comes first, then the
long tail, the other methods and the lengths of fine-tuning; the report is written after each. `--quick` takes two
seeds, hardly any training and the ablation alone: minutes, to see that everything works, not to believe a number.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.hardware import hardware
from repro.bob.arms import ABLATION, BASELINES, LENGTHS, LONG_TAIL_ARMS, SHOTS, STEPS, Arm
from repro.bob.banks import GUIDANCE
from repro.bob.produce import CONFOUNDING, FINETUNING, REAL_WEIGHT, REALISM, SCHEDULER, Setting, produce, real_alone
from repro.bob.report import write_report
from repro.bob.results import Results
from repro.clock import cpu_seconds

TEST_PER_CLASS = 40
QUICK = {"seeds": 2, "images": 10, "steps": 4, "training": 0.02}
PARTS: tuple[tuple[Arm, ...], ...] = (ABLATION, LONG_TAIL_ARMS, BASELINES, LENGTHS)


def main() -> None:
    """Makes all arms of all seeds, and the report."""
    args = _arguments()
    setting = Setting(
        work=args.work, per_class=args.images, steps=args.steps, training=args.training, test_per_class=TEST_PER_CLASS
    )
    results: list[dict[str, Any]] = [real_alone(2 * SHOTS, seed, setting) for seed in range(args.seeds)]
    for arms in PARTS[:1] if args.quick else PARTS:
        for seed in range(args.seeds):
            results += _produce_all(arms, seed, setting)
        print(_report(Results(results), args))


def _report(results: Results, args: argparse.Namespace) -> Path:
    chosen = {name: getattr(args, name) for name in QUICK}
    facts = {
        "cpu_minutes": cpu_seconds(args.work, 0) / 60, "hardware": hardware(), "scheduler": SCHEDULER,
        "guidance": GUIDANCE, "confounding": CONFOUNDING, "real_weight": REAL_WEIGHT, "realism": REALISM,
        "fine_tuning": FINETUNING, "fine_tuning_steps": round(STEPS[-1] * args.training),
        "per_class": args.images, **chosen,
    }  # fmt: skip
    options = " ".join(f"--{name} {value}" for name, value in chosen.items())
    return write_report(results, args.out, work=args.work, command=f"python -m repro.bob {options}", facts=facts)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("out/bob"), help="LoRA, shards, results of every arm")
    parser.add_argument("--out", type=Path, help="report; default: docs/bob, with --quick WORK/report")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=10, help="of every class and arm (BOB: 100)")
    parser.add_argument("--steps", type=int, default=8, help="denoising steps of every image")
    parser.add_argument("--training", type=float, default=1.0, help="length of the fine-tunings, as a factor")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    args.out = args.out or (args.work / "report" if args.quick else Path("docs/bob"))
    if args.quick:
        vars(args).update(QUICK)
    return args


def _produce_all(arms: Sequence[Arm], seed: int, setting: Setting) -> list[dict[str, Any]]:
    """All arms of a seed."""
    results = []
    for arm in arms:
        print(f"== seed {seed}, {arm.title}", file=sys.stderr)
        started = time.process_time()
        results.append(produce(arm, seed, setting))
        cpu_seconds(setting.work, time.process_time() - started)
    return results


if __name__ == "__main__":
    main()
