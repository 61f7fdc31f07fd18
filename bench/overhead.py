"""What a run costs beside its engine: encoding, planning, reading, the scheduler, writing and Python.

Command:   python bench/overhead.py engines/mini-onnxruntime-fp32-b8-s64 engines/mini-openvino-bf16-b8-s64
Hardware:  two cores of an AMD EPYC (virtual) with AVX512_BF16
Result:    batches 1.6 and 2.5 %, encoded 2.1 and 2.8 %, whole 8.0 and 17.0 % (medians of three turns; the engines
           worked 125 and 62 to 77 s; bench/results/overhead-cpu.json). An Intel Xeon with AMX, two turns, later:
           encoded 2.1 and 3.8 %, whole 7.0 and 17.5 % (overhead-xeon.json); Stable Diffusion 1.5's shapes there, 16
           rows, one turn, --policy uniform: encoded 1.7 % (overhead-sd15-xeon.json)

Runs the first rows of prompts/pets.jsonl with `fastgen run`, with every engine in turn, each run in a process of its
own. Three shares of the time in UNet and VAE are given, all beyond that time:

    batches  from the first call of the engine to the end of the run, all components counted as the engine: what grows
             with the number of rows
    encoded  the same, with text and image encoder counted as cost
    whole    from the start of the interpreter, with the imports, the plan with its CLIP scores, and opening the engine
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.hardware import hardware  # noqa: E402
from fastgen.errors import FastgenError  # noqa: E402
from fastgen.files import atomic_write_text  # noqa: E402

BANK = ROOT / "prompts" / "pets.jsonl"
ENCODERS = ("text_encoder", "image_encoder")
MARK = "measured: "


def measure(engine: str, rows: int, policy: str) -> dict[str, Any]:
    """Run in this process, which was started for it, and time every call of the engine."""
    from fastgen.engine.load import Engine
    from fastgen.production.run import run

    calls: dict[str, list[float]] = {}
    first: list[float] = []
    call = Engine.run

    def timed(self: Engine, name: str, tensors: Any) -> Any:
        start = time.time()
        first.append(start)
        output = call(self, name, tensors)
        calls.setdefault(name, []).append(time.time() - start)
        return output

    Engine.run = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory(prefix="fastgen-overhead-") as folder:
        run(BANK, engine=engine, policy=policy, out=Path(folder) / "out", limit=rows, quiet=True)
        end = time.time()
    seconds = {name: sum(spent) for name, spent in calls.items()}
    images = sum(spent for name, spent in seconds.items() if name not in ENCODERS)
    return {
        "batches": (end - first[0]) / sum(seconds.values()) - 1,
        "encoded": (end - first[0]) / images - 1,
        "whole": (end - float(os.environ["STARTED"])) / images - 1,
        "seconds": end - float(os.environ["STARTED"]),
        "engine_seconds": seconds,
    }


def measure_apart(engine: str, rows: int, policy: str) -> dict[str, Any]:
    """Measure in a process of its own."""
    words = [sys.executable, __file__, engine, "--rows", str(rows), "--policy", policy, "--alone"]
    environment = {**os.environ, "STARTED": str(time.time())}
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:  # it has said why
        sys.exit(done.returncode)
    return json.loads(done.stdout.rpartition(MARK)[2])


def summary(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Median, least and most of every share, in percent; the rest of every turn as it is."""
    shares = ("batches", "encoded", "whole")
    found: dict[str, Any] = {}
    for name in shares:
        values = [100 * turn[name] for turn in turns]
        ends = {"median": statistics.median(values), "min": min(values), "max": max(values)}
        found[name] = {key: round(value, 2) for key, value in ends.items()}
    found["seconds"] = [round(turn["seconds"], 1) for turn in turns]
    parts = [{name: round(spent, 2) for name, spent in turn["engine_seconds"].items()} for turn in turns]
    return {**found, "engine_seconds": parts}


def main() -> None:
    """Take turns, print and write the JSON."""
    parser = argparse.ArgumentParser(description="Measure what a run costs beside its engine.")
    parser.add_argument("engines", nargs="+", help="engine folders")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--policy", default="ags", help="uniform where no CLIP is at hand to score references")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "overhead-cpu.json")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        try:
            print(MARK + json.dumps(measure(options.engines[0], options.rows, options.policy)), flush=True)
        except FastgenError as error:
            parser.exit(error.exit_code, f"error: {error}\n")
        return
    start = hardware("torch", "onnxruntime", "onnxruntime-gpu", "openvino", "diffusers")
    turns: dict[str, list[dict[str, Any]]] = {engine: [] for engine in options.engines}
    for _ in range(options.turns):
        for engine, found in turns.items():
            found.append(measure_apart(engine, options.rows, options.policy))
            shares = ", ".join(f"{name} {100 * found[-1][name]:.2f} %" for name in ("batches", "encoded", "whole"))
            print(f"{engine}: {found[-1]['seconds']:.1f} s, {shares}", flush=True)
    report = {
        "command": shlex.join(["python", "bench/overhead.py", *sys.argv[1:]]),
        "hardware": start,
        "rows": options.rows,
        "policy": options.policy,
        "results": {engine: summary(found) for engine, found in turns.items()},
    }
    print(f"wrote {atomic_write_text(options.out, json.dumps(report, indent=2) + chr(10))}")


if __name__ == "__main__":
    main()
