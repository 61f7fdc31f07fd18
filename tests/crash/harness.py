"""Kills `fastgen run` again and again until it is finished, and compares with a run that nobody disturbed.

Every run is a process of its own (a fork of this one, which has imported everything and loaded the engine) and gets a
real signal. Half of the signals come after a random time; the other half come at a random one of the process's calls
that change the file system, from inside that very call, so that planning, writing, renaming and reporting are all hit.

    python -m tests.crash.harness --kills 200 --out bench/results/crash.json
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import h5py
import torch

from fastgen.errors import FastgenError
from fastgen.production.run import run
from fastgen.shards import write
from fastgen.shards.verify import verify
from tests.fake_engine import FakeEngine
from tests.output_folder import images_of

FORK = multiprocessing.get_context("fork")
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGUSR1")
CALLS = ("open", "fsync", "replace", "rename", "link", "unlink", "mkdir")
"""Functions of os before or after which a process is hit, beside the storing of an image and the closing of a shard."""


class Hit:
    """Sends a signal to its own process at the n-th call that changes the file system, before or after it."""

    def __init__(self, number: int, name: str, *, after: bool) -> None:
        self.left, self.signal, self.after = number, signal.Signals[name], after

    def wrap(self, function):
        def wrapped(*arguments, **options):
            self.left -= 1
            now = self.left == 0
            if now and not self.after:
                os.kill(os.getpid(), self.signal)
            result = function(*arguments, **options)
            if now and self.after:
                os.kill(os.getpid(), self.signal)
            return result

        return wrapped

    def install(self) -> None:
        for name in CALLS:
            setattr(os, name, self.wrap(getattr(os, name)))
        write.OpenShard.write = self.wrap(write.OpenShard.write)
        h5py.File.close = self.wrap(h5py.File.close)


def spawn(arguments: dict, hit: Hit | None = None):
    """Run in a fork; its exit code is the command's, 99 for anything that is no FastgenError."""

    def child() -> None:
        torch.set_num_threads(1)  # a forked OpenMP pool hangs
        try:
            if hit is not None:
                hit.install()
            run(**arguments, quiet=True)
        except FastgenError as error:
            if error.exit_code != 75:
                print(error, file=sys.stderr)
            os._exit(error.exit_code)
        except KeyboardInterrupt:
            os._exit(130)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(99)
        os._exit(0)

    process = FORK.Process(target=child)
    process.start()
    return process


def whole_shards(out: Path) -> list[Path]:
    """Files with a final name; opening each one shows that it is whole."""
    files = sorted((out / "shards").glob("*.h5"))
    for path in files:
        with h5py.File(path) as file:
            assert len(file["image"]) == len(file["meta"]) > 0, path
    return files


class Harness:
    """Counts what happened to one bank.

    Args:
        bank, engine: of the runs; the engine is loaded.
        folder: for output folders.
        world: ranks that work, and are killed, at the same time.
        seed: of moments and signals.
        options: of run.
    """

    def __init__(self, bank: Path, engine, folder: Path, *, world: int = 1, seed: int = 0, **options) -> None:
        import_everything()
        self.arguments = {"bank": bank, "engine": engine, **options}
        self.folder, self.world = folder, world
        self.chance = random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.rounds = 0
        self.expected = folder / "expected"
        started = time.monotonic()
        process = spawn({**self.arguments, "out": self.expected})
        process.join()
        assert process.exitcode == 0
        self.seconds = time.monotonic() - started
        self.images = images_of(self.expected)

    def round(self, kills: int) -> int:
        """Kill up to `kills` runs of one output folder, then let it finish; returns how many were hit.

        Raises:
            AssertionError: a row is lost, doubled or differs, or something is left over.
        """
        self.rounds += 1
        out = self.folder / f"round-{self.rounds}"
        hits = 0
        while hits < kills:
            number = self._disturbed(out)
            if number == 0 and (out / "run.json").exists():
                break
            hits += number
            whole_shards(out)
        for process in [spawn(self._of_rank(out, rank)) for rank in range(self.world)]:
            process.join()
            assert process.exitcode == 0, process.exitcode
        if self.world > 1:  # the rank that was last may have been there before its report could be seen
            spawn(self._of_rank(out, 0)).join()
        assert verify(out) == []
        found = images_of(out)
        assert found.keys() == self.images.keys() and all((found[k] == self.images[k]).all() for k in found)
        assert (out / "plan.jsonl").read_bytes() == (self.expected / "plan.jsonl").read_bytes()
        # A killed process leaves hidden temporary files; in shards/ not even these.
        names = {path.name for path in out.iterdir() if path.is_file() and not path.name.startswith(".")}
        names |= {path.name for path in (out / "shards").iterdir() if path.suffix != ".h5"}
        allowed = {"plan.json", "plan.jsonl", "run.json", *(f"run-r{rank:03d}.json" for rank in range(self.world))}
        assert names <= allowed, names - allowed
        return hits

    def _of_rank(self, out: Path, rank: int) -> dict:
        return {**self.arguments, "out": out, "rank": rank, "world": self.world}

    def _disturbed(self, out: Path) -> int:
        """Start all ranks, hit each of them once, and see how they end; returns how many were hit in time."""
        plans = []
        for rank in range(self.world):
            name, inside = self.chance.choice(SIGNALS), self.chance.random() < 0.5
            number, after = int(self.chance.expovariate(1 / 25)) + 1, self.chance.random() < 0.5
            hit = Hit(number, name, after=after) if inside else None
            plans.append((name, hit, spawn(self._of_rank(out, rank), hit)))
        started = time.monotonic()
        late = [(self.chance.uniform(0, self.seconds), name, process) for name, hit, process in plans if hit is None]
        for delay, name, process in sorted(late, key=lambda entry: entry[0]):
            process.join(max(0, started + delay - time.monotonic()))
            if process.exitcode is None:
                os.kill(process.pid, signal.Signals[name])
        return sum(self._ended(name, hit, process) for name, hit, process in plans)

    def _ended(self, name: str, hit: Hit | None, process) -> int:
        """Wait for the end and judge it: 1 if the signal ended the run."""
        process.join(300)
        code, where = process.exitcode, "at a moment" if hit is None else "inside a call"
        # A signal before the run listens, or when it has stopped listening, does what it does to any program.
        allowed = {0, -signal.Signals[name]} if name == "SIGKILL" else {0, 75, 130, -signal.Signals[name]}
        assert code in allowed, f"{name} {where}: exit code {code}"
        self.ends[str(code)] += 1
        if code == 0:  # the signal came too late: how long a run takes depends on what else the machine does
            self.seconds = max(self.seconds * 0.8, 0.2)
            return 0
        self.kills[f"{name} {where}"] += 1
        return 1


def import_everything() -> None:
    """What a run imports when it needs it, so that the forks find it: it takes ten times as long as the run."""
    import diffusers
    import onnxruntime
    import transformers

    assert diffusers.DDIMScheduler and transformers.CLIPTokenizer and transformers.CLIPImageProcessor and onnxruntime


def small_bank(folder: Path, rows: int) -> Path:
    """A bank of PetWorld references."""
    defaults = {"refs": "petworld", "policy": "uniform", "shots": 2, "steps": 2, "guidance_scale": 2.0}
    lines = [{"fastgen_bank": 1, "name": "crash", "classes": ["Beagle", "Siamese"], "defaults": defaults}]
    for index in range(rows):
        name = lines[0]["classes"][index % 2]
        lines.append({"id": f"{name}-{index}", "class": name, "prompt": f"a photo of the {name} number {index}"})
    path = folder / "crash.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def main() -> None:
    """Kill runs of a bank, and write what happened."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200, help="runs that must end by a signal")
    parser.add_argument("--engine", choices=("stand-in", "tiny"), default="stand-in", help="tiny: a real one, slower")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder, engine = Path(name), FakeEngine(seconds_per_step=0.01)
        if options.engine == "tiny":
            builder = FORK.Process(target=build_engine, args=(folder,))
            builder.start()
            builder.join()
            engine = folder / "engine"
        result = measure(small_bank(folder, rows=12), engine, folder, kills=options.kills, seed=options.seed)
    command = f"python -m tests.crash.harness --engine {options.engine} --kills {options.kills} --seed {options.seed}"
    result = {"command": command, **result, "seconds": round(time.monotonic() - started)}
    print(json.dumps(result, indent=1))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def measure(bank: Path, engine, folder: Path, *, kills: int, seed: int) -> dict:
    """Kill runs of one process and of three, in rounds, until each has its half; returns the JSON."""
    single = Harness(bank, engine, _made(folder / "one"), seed=seed, shard_size=5, batch=2)
    several = Harness(bank, engine, _made(folder / "three"), world=3, seed=seed + 1, shard_size=3, batch=2)
    half = -(-kills // 2)
    for harness in (single, several):
        while left := max(0, half - harness.kills.total()):
            harness.round(min(left, 8))
            done = single.kills.total() + several.kills.total()
            print(f"{done} of {kills} kills, {single.rounds + several.rounds} rounds", file=sys.stderr)
    found = single.kills + several.kills
    return {
        "kills": found.total(),
        "by_signal": dict(sorted(found.items())),
        "of_three_ranks_at_once": several.kills.total(),
        "exit_codes": dict(sorted((single.ends + several.ends).items())),
        "rounds": single.rounds + several.rounds,
        "rows": len(single.images),
        "identical": f"{found.total()} of {found.total()}",  # a round that is not identical ends with an error
    }


def build_engine(folder: Path) -> None:
    """Build the engine of the tiny random model, in a process of its own: its threads would not survive a fork."""
    from fastgen.engine.build import build
    from tests.tiny_model import make_tiny_model

    torch.set_num_threads(1)
    build(make_tiny_model(folder / "model"), batch=4, out=folder / "engine", say=lambda line: None)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
