"""Everything that a GPU has to say about fastgen in a few minutes, on random weights of Stable Diffusion 1.5's shapes.

Command:   python bench/device.py --out FOLDER --budget 312
Hardware:  one NVIDIA GPU with about 70 GB; run on an H200
Result:    FOLDER/device.json, logs.txt and kernels-*.txt; bench/results/device-nvidia-h200-fused.json: fastgen compiled
           6.7 images/s, diffusers compiled 6.3, diffusers at batch 16 4.6, diffusers as DALDA drives it 0.9

Every part is a process of its own. The contenders of bench/throughput.py load, build and compile at the same time and
then wait; when all are ready, or there is no time left to wait, they draw one after the other, alone on the GPU. The
report is written after every part, so whatever stops this leaves what was found until then. The weights are random:
pictures are noise, speed is not.

The most valuable comes first: the tests of the torch backend, beside everything that is not timed; a turn of every
contender and a second one of the compiled; times of UNet and decoder, kernels, ceilings; other numbers of images at
once; more turns, or the embedded model, if there is one.
"""

import argparse
import json
import os
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.turns import Worker  # noqa: E402

COMPILED = ("fastgen-compiled", "fastgen-compiled-large", "compiled")
CONTENDERS = (*COMPILED, "fastgen", "diffusers", "dalda")
BATCHES = {"fastgen": "1 4 16", "diffusers": "1 4 16"}
"""Contender -> images at once that it is tried with."""

MINI_CONTENDERS = ("fastgen", "diffusers", "dalda")
TESTS = "tests/engine/test_torch_gpu.py"
SHARE = {"dalda": 16, "diffusers": 2, "fastgen": 2}
"""Contender -> a turn of it has so many times fewer images than one of the fastest: it is slow."""

TURNS = 100.0
"""Seconds kept for turns: whoever is not ready so long before the end is not waited for."""

MEASURES = 16.0
"""Seconds kept for times, kernels and ceilings."""

BATCH_TIME = 25.0
"""Seconds that the tries at other batches need, a contender."""

MINI = 45.0
"""Seconds that the embedded model needs."""

SPARE = 3.0
"""Seconds before the end at which nothing new is begun."""


class Session:
    """The clock, the report, and the processes that are still there."""

    def __init__(self, out: Path, scratch: Path, budget: float) -> None:
        """Start the clock.

        Args:
            out: folder of the report and the logs.
            scratch: folder of weights, engines and compiled kernels.
            budget: seconds for everything.
        """
        self.out, self.scratch, self.budget, self._start = out, scratch, budget, time.monotonic()
        self.workers: dict[str, Worker] = {}
        self.logs: dict[str, Path] = {}
        self.waiting: set[str] = set()
        self.rows = 0
        self.report: dict[str, Any] = {"command": shlex.join(["python", "bench/device.py", *sys.argv[1:]])}
        self.report |= {"hardware": {}, "parts": [], "turns": []}

    @property
    def left(self) -> float:
        """Seconds until the budget is used up."""
        return self._start + self.budget - time.monotonic()

    def note(self, kind: str, **found: Any) -> None:
        """Add to the report, write it and the logs so far, and print a line."""
        at = round(self.budget - self.left, 1)
        self.report[kind].append({"at_second": at, **found})
        part = self.out / "device.json.part"
        part.write_text(json.dumps(self.report, indent=1) + "\n")
        part.replace(self.out / "device.json")
        logs = [f"=== {name}\n{path.read_text(errors='replace')}" for name, path in self.logs.items()]
        (self.out / "logs.txt").write_text("\n".join(logs))
        print(f"{at:6.1f} s  {', '.join(f'{key} {value}' for key, value in found.items())}"[:240], flush=True)

    def spawn(self, name: str, command: list[str], *, threads: int) -> Worker:
        """Start a process with so many threads; it is killed at the end of the session at the latest."""
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": str(threads),
            "TORCHINDUCTOR_CACHE_DIR": str(self.scratch / f"inductor-{name}"),
            "TORCHINDUCTOR_COMPILE_THREADS": str(threads),
        }
        log = self.scratch / f"{name}.log"
        self.logs[name] = log
        self.workers[name] = Worker(command, log=log, environment=environment, folder=self.scratch)
        return self.workers[name]

    def stop(self, *names: str) -> None:
        """End processes, whatever they do."""
        for name in names:
            if name in self.workers:
                self.workers.pop(name).stop()
        self.waiting -= set(names)

    def ask(self, name: str, line: str, *, timeout: float) -> dict[str, Any] | None:
        """What a process says to a line; one that says nothing in time is ended, and the report says so."""
        answer = self.workers[name].ask(line, timeout=max(1.0, min(timeout, self.left - 1)))
        if answer is None:
            self.note("parts", part=f"{name}: {line.split()[0]}", failed=self.workers[name].reason())
            self.stop(name)
        return answer

    def see_who_is_ready(self) -> None:
        """Note which of the waiting are ready, or have ended before they were."""
        for name in sorted(self.waiting):
            worker = self.workers[name]
            answer = worker.answer()
            if answer is not None:
                self.note("parts", part=f"{name}: ready", **answer)
                self.waiting.discard(name)
            elif not worker.alive:
                self.note("parts", part=f"{name}: ready", failed=worker.reason())
                self.stop(name)


def prepare(session: Session, kind: str, options: dict[str, Any]) -> str | None:
    """Make a model and its work.json; returns the path, None if that failed."""
    path = session.scratch / f"{kind}.json"
    path.write_text(json.dumps(options))
    command = [sys.executable, str(ROOT / "bench" / "prepare.py"), kind, str(session.scratch / kind), str(path)]
    worker = session.spawn(f"prepare-{kind}", command, threads=8)
    answer = worker.answer(timeout=min(90.0, session.left / 2))
    failed = {} if answer else {"failed": worker.reason()}
    session.stop(f"prepare-{kind}")
    if answer:
        session.report["hardware"] = answer["hardware"]
    session.note("parts", part=f"prepare {kind}", **failed)
    return answer["work"] if answer else None


def start(session: Session, work: str, contenders: tuple[str, ...], *, keep: float) -> list[str]:
    """Start contenders and wait for all, but leave `keep` seconds; returns the names of their processes."""
    kind = Path(work).parent.name
    names = {f"{kind}-{contender}": contender for contender in contenders}
    for name, contender in names.items():
        command = [sys.executable, str(ROOT / "bench" / "peers.py"), contender, work, "--turns"]
        session.spawn(name, command, threads=8 if contender in COMPILED else 2)
    session.waiting |= names.keys()
    while session.waiting and session.left > keep:
        session.see_who_is_ready()
    return list(names)


def take_turns(session: Session, names: list[str], most: dict[str, int], *, keep: float) -> None:
    """Let contenders draw one after the other until each had its turns, or only `keep` seconds are left.

    Args:
        session: with the contenders.
        names: of their processes, the most valuable first; every other round goes through them backwards.
        most: name -> turns, those of earlier calls counted.
        keep: seconds.
    """
    while True:
        session.see_who_is_ready()
        had = {name: [turn["took"] for turn in session.report["turns"] if turn["contender"] == name] for name in names}
        ready = [
            name
            for name in names
            if name in session.workers.keys() - session.waiting
            and len(had[name]) < most[name]
            and session.left - keep > max([SPARE, *(took + 1 for took in had[name])])
        ]
        if not ready and (not session.waiting.intersection(names) or session.left < keep + SPARE):
            return
        if ready:
            name = min(ready, key=lambda name: (len(had[name]), (-1) ** len(had[name]) * names.index(name)))  # noqa: B023
            count = max(1, session.rows // SHARE.get(name.partition("-")[2], 1))
            answer = session.ask(name, f"draw {count}", timeout=45)
            if answer is not None:
                took = answer.pop("seconds")
                speed = round(answer["rows"] / took, 3)
                alone = not session.waiting and "tests" not in session.workers
                found = {"images_per_second": speed, "took": took, "alone": alone, **answer}
                session.note("turns", contender=name, **found)


def measure(session: Session) -> None:
    """Times, kernels and ceilings, from processes that are there already."""
    there = session.workers.keys() - session.waiting
    ours = "sd15-fastgen-compiled" if "sd15-fastgen-compiled" in there else "sd15-fastgen"
    kernels = f"profile {session.out}"
    asked = [(ours, "parts"), (ours, f"{kernels}/kernels-fastgen.txt"), (ours, "ceiling"), (ours, "attention")]
    asked.append(("sd15-compiled", f"{kernels}/kernels-compiled.txt"))
    for name, line in asked:
        if name in there and name in session.workers and session.left > SPARE:
            answer = session.ask(name, line, timeout=15)
            if answer is not None:
                session.note("parts", part=f"{name}: {line.split()[0]}", **answer)


def try_batches(session: Session) -> None:
    """Images/s at other numbers of images at once."""
    for contender, batches in BATCHES.items():
        name = f"sd15-{contender}"
        if name in session.workers.keys() - session.waiting and session.left > BATCH_TIME:
            answer = session.ask(name, f"batches {batches}", timeout=2 * BATCH_TIME)
            if answer is not None:
                session.note("parts", part=f"{name}: batches", **answer)


def start_tests(session: Session) -> None:
    """Start the tests that need a GPU and no TensorRT."""
    command = [sys.executable, "-m", "pytest", str(ROOT / TESTS), "-c", str(ROOT / "pyproject.toml"), "-m", "gpu"]
    session.spawn("tests", [*command, "-W", "default", "-p", "no:cacheprovider", "-q", "-rA"], threads=2)


def finish_tests(session: Session) -> None:
    """Note how the tests ended; those that take too long are cut short."""
    worker = session.workers["tests"]
    ended = "" if not worker.alive else " (cut short)"
    session.logs["tests"].write_text("\n".join(worker.lines) + "\n")
    session.note("parts", part="tests", result=(worker.lines or ["no output"])[-1] + ended)
    session.stop("tests")


def run(session: Session, options: dict[str, Any]) -> None:
    """All parts, the most valuable first."""
    session.report["settings"], session.rows = options, options["rows"]
    start_tests(session)
    work = prepare(session, "sd15", options)
    names = start(session, work, CONTENDERS, keep=TURNS) if work else []
    finish_tests(session)
    twice = {name: 2 if name.split("-", 1)[1] in COMPILED else 1 for name in names}
    take_turns(session, names, twice, keep=MEASURES)
    measure(session)
    try_batches(session)
    mini = (ROOT / "fastgen" / "models" / "mini" / "model_index.json").is_file() and session.left > MINI
    take_turns(session, names, {name: 3 * count for name, count in twice.items()}, keep=MINI if mini else SPARE)
    session.stop(*names)
    session.rows *= 4  # a small model
    if mini and (work := prepare(session, "mini", {**options, "rows": session.rows})):
        names = start(session, work, MINI_CONTENDERS, keep=12.0)
        take_turns(session, names, dict.fromkeys(names, 3), keep=SPARE)


def main() -> None:
    """Run everything within the budget."""
    parser = argparse.ArgumentParser(description="Measure fastgen and its peers on one GPU within a budget of time.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report and the logs")
    parser.add_argument("--budget", type=float, default=312, help="seconds for everything")
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/fastgen-device"), help="weights and engines: 20 GB")
    parser.add_argument("--steps", type=int, default=30, help="denoising steps (DDIM)")
    parser.add_argument("--rows", type=int, default=64, help="images of a turn")
    parser.add_argument("--batch", type=int, default=16, help="images that a peer draws together")
    parser.add_argument("--precision", default="fp16", help="of the engines and of diffusers")
    parser.add_argument("--size", type=int, default=512, help="side of the images")
    parser.add_argument("--scale", type=int, default=1, help="divides every width of the model: to try this out")
    given = vars(parser.parse_args())
    out, scratch, budget = (given.pop(key) for key in ("out", "scratch", "budget"))
    for folder in (out, scratch):
        folder.mkdir(parents=True, exist_ok=True)
    session = Session(out.resolve(), scratch.resolve(), budget)
    try:
        run(session, given)
    finally:
        session.stop(*list(session.workers))
    speeds: dict[str, list[float]] = {}
    for turn in session.report["turns"]:
        speeds.setdefault(turn["contender"], []).append(turn["images_per_second"])
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    session.note("parts", part="medians, images per second", **medians)


if __name__ == "__main__":
    main()
