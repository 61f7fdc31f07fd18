"""Measures DALDA's tables and relations in PetWorld: `python -m repro.dalda --work out/dalda`.

Stops and resumes anywhere; an arm that is finished is not made again. `--quick` takes two seeds, four steps and the
tables' arms alone: minutes, to see that everything works, not to believe a number.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from bench.hardware import hardware
from fastgen.engine.build import build
from fastgen.files import atomic_write_text
from repro.dalda.arms import ARMS, TABLE, WORLDS
from repro.dalda.produce import Setting, produce
from repro.dalda.report import write_report
from repro.dalda.results import Results

QUICK_SEEDS, QUICK_STEPS, QUICK_IMAGES, QUICK_WORD_STEPS = 2, 4, 2, 2
TEST_PER_CLASS = 20


def main() -> None:
    """Makes all arms of all seeds in both worlds, then the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("out/dalda"), help="shards, features, results of every arm")
    parser.add_argument("--out", type=Path, help="report; default: docs/dalda, with --quick WORK/report")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12, help="denoising steps of every image")
    parser.add_argument("--word-steps", type=int, default=60, help="training steps of a word of DA-Fusion")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    arms, seeds, steps, word_steps = ARMS, args.seeds, args.steps, args.word_steps
    if args.quick:
        arms = tuple(replace(arm, per_reference=QUICK_IMAGES) for arm in TABLE)
        seeds, steps, word_steps = QUICK_SEEDS, QUICK_STEPS, QUICK_WORD_STEPS
    engine = build("mini", out=args.work / "engine")
    setting = Setting(work=args.work, engine=engine, steps=steps, word_steps=word_steps, test_per_class=TEST_PER_CLASS)
    results = []
    for seed in range(seeds):
        for world in WORLDS:
            for arm in (arm for arm in arms if world in arm.worlds):
                print(f"== seed {seed}, {world}, {arm.title}", file=sys.stderr)
                started = time.monotonic()
                results.append(produce(arm, world, seed, setting))
                _clock(args.work, time.monotonic() - started)
    facts = {"seeds": list(range(seeds)), "steps": steps, "minutes": _clock(args.work, 0) / 60}
    facts |= {"hardware": hardware()}
    folder = args.out or (args.work / "report" if args.quick else Path("docs/dalda"))
    print(write_report(Results(results), folder, command="python -m repro.dalda", facts=facts))


def _clock(work: Path, seconds: float) -> float:
    """Seconds spent so far, over all resumptions; they are kept in a file."""
    path = work / "seconds.txt"
    total = seconds + (float(path.read_text()) if path.is_file() else 0.0)
    atomic_write_text(path, f"{total}\n")
    return total


if __name__ == "__main__":
    main()
