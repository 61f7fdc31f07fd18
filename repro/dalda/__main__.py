"""Measures DALDA's tables and relations in PetWorld: `python -m repro.dalda --work out/dalda`.

Stops and resumes anywhere; an arm that is finished is not made again. The tables and relations come first, then the
figures over sentences and shots; the report is written after either. `--quick` takes two seeds, two images and the
tables' arms alone: minutes, to see that everything works, not to believe a number.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.hardware import hardware
from fastgen.engine.build import build
from repro.clock import cpu_seconds
from repro.dalda.arms import FIGURES, SWEEPS, TABLE, WORLDS, Arm
from repro.dalda.produce import SCHEDULER, Setting, produce
from repro.dalda.report import write_report
from repro.dalda.results import Results

TEST_PER_CLASS = 20
QUICK = {"seeds": 2, "images": 2, "steps": 4, "word_steps": 2}


def main() -> None:
    """Makes all arms of all seeds in both worlds, and the report."""
    args = _arguments()
    setting = Setting(
        work=args.work, engine=build("mini", out=args.work / "engine"), steps=args.steps, word_steps=args.word_steps,
        test_per_class=TEST_PER_CLASS,
    )  # fmt: skip
    table = tuple(replace(arm, per_reference=args.images) for arm in TABLE)
    results: list[dict[str, Any]] = []
    for arms in [table] if args.quick else [table + SWEEPS, FIGURES]:
        for seed in range(args.seeds):
            results += _produce_all(arms, seed, setting)
        chosen = {name: getattr(args, name) for name in QUICK}
        facts = {
            "cpu_minutes": cpu_seconds(args.work, 0) / 60,
            "scheduler": SCHEDULER,
            "hardware": hardware(),
            **chosen,
        }
        options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in chosen.items())
        print(write_report(Results(results), args.out, command=f"python -m repro.dalda {options}", facts=facts))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("out/dalda"), help="shards, features, results of every arm")
    parser.add_argument("--out", type=Path, help="report; default: docs/dalda, with --quick WORK/report")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=4, help="of every reference in the tables (DALDA: 10)")
    parser.add_argument("--steps", type=int, default=8, help="denoising steps of every image")
    parser.add_argument("--word-steps", type=int, default=12, help="training steps of a word of DA-Fusion")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    args.out = args.out or (args.work / "report" if args.quick else Path("docs/dalda"))
    if args.quick:
        vars(args).update(QUICK)
    return args


def _produce_all(arms: Sequence[Arm], seed: int, setting: Setting) -> list[dict[str, Any]]:
    """All arms of a seed, in all their worlds."""
    results = []
    for world in WORLDS:
        for arm in (arm for arm in arms if world in arm.worlds):
            print(f"== seed {seed}, {world}, {arm.title}", file=sys.stderr)
            started = time.process_time()
            results.append(produce(arm, world, seed, setting))
            cpu_seconds(setting.work, time.process_time() - started)
    return results


if __name__ == "__main__":
    main()
