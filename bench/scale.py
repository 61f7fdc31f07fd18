"""How long a bank of any length takes to its first batch, and how much memory a run, its check and a plan take.

Command:   OMP_NUM_THREADS=1 python bench/scale.py --rows 10000 1000000 10000000 --seconds 20
Hardware:  two cores of an AMD EPYC (virtual), load average 3.5
Result:    first batch after 5.6, 4.8 and 5.2 s; peak of the run 904, 898 and 902 MiB, of the check beside it 61 MiB;
           a check of a million rows takes 19 s (bench/results/scale-cpu.json). Ten million were not checked and planned
           to the end: at these rates that takes 3 and 15 minutes, after which the first shards get their final names.

The bank is written to a temporary folder and deleted afterwards (about 1.3 GB for ten million rows). The engine is a
random model of toy width, because what is measured is everything around it. Every measurement is a process of its own:

    run    `run` with an empty output folder, ended by SIGTERM some seconds after the first batch. Seconds count from
           the start of the interpreter; the peak is of this process, and that of the check beside it is given apart
    check  the whole bank is checked, as in the process beside a run (only up to --whole rows)
    plan   rows are resolved one after the other for some seconds, while the bank is checked
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.hardware import hardware  # noqa: E402
from fastgen.errors import Interrupted  # noqa: E402
from fastgen.files import atomic_write_text  # noqa: E402

MARK = "measured: "
CLASSES = ("Abyssinian", "Beagle", "Pug", "Siamese")
PIECE = 100_000


def write_bank(path: Path, rows: int) -> None:
    """Write a bank of prompt rows, every one with its own id and text, PIECE rows at a time."""
    defaults = {"refs": "petworld", "policy": "uniform", "steps": 2}
    header = {"fastgen_bank": 1, "name": "scale", "classes": CLASSES, "defaults": defaults}
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(header) + "\n")
        for first in range(0, rows, PIECE):
            piece = ((i, CLASSES[i % len(CLASSES)]) for i in range(first, min(first + PIECE, rows)))
            file.write(
                "".join(
                    f'{{"id": "row-{i}", "class": "{name}", "prompt": "a photo of a {name}, number {i}, on grass in '
                    'the evening sun"}\n'
                    for i, name in piece
                )
            )


def measure_run(folder: Path, seconds: float) -> dict[str, Any]:
    """Start a run and end it some seconds after its first batch."""
    from fastgen.engine.load import load_engine
    from fastgen.production.run import run

    engine = load_engine(folder / "engine")
    decode, first = engine.decode, []

    def timed(latents: Any) -> Any:
        images = decode(latents)
        if not first:
            first.append(_age())
            signal.setitimer(signal.ITIMER_REAL, seconds)
        return images

    def end(number: int, frame: Any) -> None:
        me = os.getpid()
        children = Path(f"/proc/self/task/{me}/children").read_text().split()
        check_peaks.extend(map(_peak, children))
        os.kill(me, signal.SIGTERM)

    check_peaks: list[int] = []
    signal.signal(signal.SIGALRM, end)
    engine.decode = timed  # type: ignore[method-assign]
    done = True
    try:
        run(folder / "bank.jsonl", engine=engine, out=folder / "out", shard_size=64, quiet=True)
    except Interrupted:
        done = False
    signal.setitimer(signal.ITIMER_REAL, 0)
    found = {"first_batch_seconds": round(first[0], 2), "finished": done}
    return {**found, "check_peak_mib": check_peaks[0]} if check_peaks else found


def measure_check(folder: Path, seconds: float) -> dict[str, Any]:
    """Check the whole bank."""
    from fastgen.production.setup import check_everything

    start = time.perf_counter()
    _, rows = check_everything(*_setup(folder))
    spent = time.perf_counter() - start
    return {"seconds": round(spent, 1), "rows_per_second": round(rows / spent)}


def measure_plan(folder: Path, seconds: float) -> dict[str, Any]:
    """Resolve rows for some seconds."""
    from fastgen.production.run import plan

    first, rows, start = 0.0, 0, time.perf_counter()
    for _ in plan(folder / "bank.jsonl", engine=folder / "engine"):
        first = first or _age()
        rows += 1
        if time.perf_counter() - start > seconds:
            break
    rate = rows / (time.perf_counter() - start)
    return {"first_row_seconds": round(first, 2), "rows": rows, "rows_per_second": round(rate)}


MEASURES: dict[str, Callable[[Path, float], dict[str, Any]]] = {
    "run": measure_run,
    "check": measure_check,
    "plan": measure_plan,
}


def _setup(folder: Path) -> tuple[Any, Any]:
    """Arguments and facts of the engine, as `run` makes them."""
    from fastgen.production.setup import Arguments, engine_facts

    names = ("refs", "shots", "policy", "steps", "guidance", "scheduler", "limit", "clip")
    arguments = Arguments(bank=folder / "bank.jsonl", seed=0, **dict.fromkeys(names))
    return arguments, engine_facts(folder / "engine")


def _age() -> float:
    """Seconds since this process was started, by the clock of its parent."""
    return time.time() - float(os.environ["STARTED"])


def _peak(process: int | str = "self") -> int:
    """Most memory that a process ever had, in MiB; `getrusage` would count its parent's too (it survives exec)."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


def run_apart(kind: str, folder: Path, seconds: float) -> dict[str, Any]:
    """Measure in a process of its own."""
    words = [sys.executable, __file__, "--alone", kind, "--folder", str(folder), "--seconds", str(seconds)]
    environment = {**os.environ, "STARTED": str(time.time())}
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.rpartition(MARK)[2])


def measure_all(rows: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything about one length."""
    bank = folder / "bank.jsonl"
    write_bank(bank, rows)
    found: dict[str, Any] = {"bank_mib": bank.stat().st_size >> 20}
    for kind in MEASURES:
        if kind == "check" and rows > options.whole:
            continue
        found[kind] = run_apart(kind, folder, options.seconds)
        print(f"{rows:>10} rows  {kind:5}  " + ", ".join(f"{k} {v}" for k, v in found[kind].items()), flush=True)
        subprocess.run(["rm", "-rf", str(folder / "out")], check=True)
    bank.unlink()
    return found


def main() -> None:
    """Measure every length, print and write the JSON."""
    parser = argparse.ArgumentParser(description="Measure how banks of any length start, and what memory they take.")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000, 10_000_000])
    parser.add_argument("--whole", type=int, default=1_000_000, help="longest bank that is checked to its end")
    parser.add_argument("--seconds", type=float, default=20.0, help="of generating and of planning")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "scale-cpu.json")
    parser.add_argument("--alone", choices=MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        found = MEASURES[options.alone](options.folder, options.seconds)
        print(MARK + json.dumps({**found, "peak_mib": _peak()}), flush=True)
        return
    from fastgen.engine.build import build
    from tests.tiny_model import make_tiny_model

    with tempfile.TemporaryDirectory(prefix="fastgen-scale-") as name:
        folder = Path(name)
        build(make_tiny_model(folder / "model"), batch=8, out=folder / "engine", say=lambda line: None)
        results = {str(rows): measure_all(rows, options, folder) for rows in options.rows}
    report = {
        "command": shlex.join(["python", "bench/scale.py", *sys.argv[1:]]),
        "hardware": hardware("numpy", "torch", "onnxruntime", "onnxruntime-gpu"),
        "settings": {"seconds": options.seconds, "whole": options.whole},
        "results": results,
    }
    print(f"wrote {atomic_write_text(options.out, json.dumps(report, indent=2) + chr(10))}")


if __name__ == "__main__":
    main()
