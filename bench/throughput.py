"""Images per second of fastgen and of every peer, on the same weights, rows, steps and size.

Command:   python bench/throughput.py --model mini --steps 25 --guidance 3 --rows 16 --batch 8 --rounds 9
           --repeats 1, and the same with --backend openvino --precision bf16
Hardware:  two virtual cores of an AMD EPYC with AVX512_BF16
Result:    images/s, medians of 9 turns, float32 and bf16: openvino (text only) 2.36 4.04, fastgen 2.30 4.19,
           fastgen-text 2.24 3.86, optimum (text only) 2.23, compiled 2.10 2.85, diffusers 1.68 2.20, dalda 1.06 1.16
           (bench/results/throughput-mini.json, throughput-mini-bf16.json). Two cores of an Intel Xeon with AMX, bf16,
           five turns: fastgen-no-adapter 6.62, fastgen 5.78, fastgen-text 5.72, openvino 5.72, compiled 4.27, diffusers
           2.99, dalda 1.00 (throughput-mini-bf16-xeon.json)

On a GPU:  python -m tests.real_shapes sd15 FOLDER, then
           python bench/throughput.py --model FOLDER --ip-adapter FOLDER/adapters/ip-adapter.safetensors
           --backend torch --precision fp16 --size 512 --steps 30 --peers fastgen fastgen-compiled dalda diffusers
           compiled --batch 16; bench/device.py does the same in a few minutes

Every contender is a process of its own (bench/peers.py) and has the machine to itself; they take turns, round after
round, each round in another order. A contender whose library is not installed is named and left out. Where
--optimum-site and --openvino-python come from: bench/NOTES.md, "The foreign peers".

What is compared:
    fastgen            a lambda and a reference of its own for every row
    fastgen-compiled   the same, built with --compile (torch backend)
    dalda              diffusers, one image a call, lambda set before each: the only peer that does the same work
    diffusers          one lambda for all rows, references per row
    compiled           the same through torch.compile
    fastgen-text       fastgen without references (the adapter's branch is computed, its weight is 0)
    fastgen-no-adapter  fastgen built without the adapter, as the next two are
    optimum            optimum-onnx in ONNX Runtime, text only
    openvino           optimum-intel in OpenVINO, text only
"""

import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.hardware import hardware  # noqa: E402
from fastgen.engine.model_files import find_sources  # noqa: E402
from fastgen.engine.spec import PRECISIONS  # noqa: E402
from fastgen.files import atomic_write_text  # noqa: E402
from fastgen.petworld.attributes import OXFORD_PETS  # noqa: E402
from fastgen.petworld.render import render, sample_scene  # noqa: E402

OURS = ("fastgen", "fastgen-compiled", "fastgen-text", "fastgen-no-adapter")
FOREIGN_TEXT = ("optimum", "openvino")
TEXT_ONLY = ("fastgen-text", "fastgen-no-adapter", *FOREIGN_TEXT)
PEERS = (*OURS, "dalda", "diffusers", "compiled", *FOREIGN_TEXT)
NEGATIVE = "monochrome, lowres, bad anatomy, worst quality, low quality"
SETTINGS = ("size", "steps", "guidance", "batch", "precision")
PACKAGES = ("torch", "diffusers", "onnxruntime", "onnxruntime-gpu", "optimum-onnx", "openvino")


def make_work(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Draw the references, and write down the rows and how to build the engine."""
    from PIL import Image

    sources = find_sources(options.model, ip_adapter=options.ip_adapter)
    size = options.size or sources.defaults()["size"]
    # with guidance, `batch` images are twice as many rows of one execution of the UNet, of ours as of the peers'
    together = options.batch * (2 if options.guidance > 1 else 1)
    build = {"backend": options.backend, "precision": options.precision, "batch": together, "size": size}
    build |= {"model": str(options.model), "ip_adapter": options.ip_adapter}
    rows = []
    for i in range(options.rows):
        breed = OXFORD_PETS[i % len(OXFORD_PETS)]
        path = folder / f"reference-{i % 8}.png"
        if not path.exists():
            Image.fromarray(render(sample_scene(0, i, breeds=(breed,)), 256)).save(path)
        prompt = f"a photo of a {breed}, number {i}"
        weight = round(0.1 + 0.8 * i / max(1, options.rows - 1), 3)
        row = {"prompt": prompt, "negative_prompt": NEGATIVE, "seed": i, "lambda": weight, "reference": str(path)}
        rows.append(row)
    settings = {key: getattr(options, key) for key in ("steps", "guidance", "batch", "precision", "repeats")}
    paths = {"model": str(sources.folder), "ip_adapter": str(sources.adapter), "folder": str(folder)}
    return {**paths, "build": build, "size": size, **settings, "warm_up_steps": 1, "rows": rows}


def command_of(name: str, path: Path, options: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """Program and environment of a contender: foreign ones have their own libraries."""
    python = options.openvino_python if name == "openvino" else sys.executable
    environment = dict(os.environ)
    if name == "optimum" and options.optimum_site is not None:
        environment["PYTHONPATH"] = str(options.optimum_site)
    return [python, str(ROOT / "bench" / "peers.py"), name, str(path)], environment


def measure(
    work: dict[str, Any], options: argparse.Namespace, folder: Path
) -> tuple[dict[str, list[float]], dict[str, dict[str, str]]]:
    """Run every contender in turns.

    Returns:
        contender -> seconds for all rows, without those that cannot run; and contender -> versions of its packages.
    """
    path = folder / "work.json"
    path.write_text(json.dumps(work))
    times: dict[str, list[float]] = {name: [] for name in options.peers}
    versions: dict[str, dict[str, str]] = {}
    started = time.monotonic()
    for turn in range(options.rounds):
        order = options.peers[turn % len(options.peers) :] + options.peers[: turn % len(options.peers)]
        for name in [name for name in order if name in times]:
            if time.monotonic() - started > options.budget:
                break
            command, environment = command_of(name, path, options)
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                del times[name]
                print(f"{name}: left out ({done.stderr.strip().splitlines()[-1][:200]})", flush=True)
                continue
            found = json.loads(done.stdout.strip().splitlines()[-1])
            times[name] += found["seconds"]
            versions[name] = found["versions"]
            speeds = ", ".join(f"{len(work['rows']) / s:.3f}" for s in found["seconds"])
            more = f"ready after {found['ready_seconds']:.0f} s"
            if found["failed"]:
                more += f"; {found['failed']} rows of it were NaN or of one colour"
            print(f"round {turn + 1} {name:18} {speeds} images/s ({more})", flush=True)
    return {name: seconds for name, seconds in times.items() if seconds}, versions


def summary(times: dict[str, list[float]], rows: int) -> dict[str, dict[str, float]]:
    """Images per second (median, min, max), and ratios to the DALDA way and to fastgen of the same kind of work.

    `fastgen_over_it` of a contender without references takes fastgen-text; pipelines without an adapter have
    `no_adapter_over_it` too.
    """
    speeds = {name: [rows / s for s in seconds] for name, seconds in times.items()}
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    found = {}
    for name, values in speeds.items():
        found[name] = {"images_per_second": medians[name], "min": min(values), "max": max(values)}
        found[name]["turns"] = len(values)
        if "dalda" in medians:
            found[name]["over_dalda"] = medians[name] / medians["dalda"]
        ratios = {"fastgen_over_it": "fastgen-text" if name in TEXT_ONLY else "fastgen"}
        if name in FOREIGN_TEXT:
            ratios["no_adapter_over_it"] = "fastgen-no-adapter"
        found[name] |= {key: medians[ours] / medians[name] for key, ours in ratios.items() if ours in medians}
    return found


def agreement(folder: Path, names: Collection[str]) -> dict[str, float]:
    """PSNR in dB between fastgen's images and those of the peers of this run that do exactly the same work."""
    found = {}
    for ours, theirs in (("fastgen", "dalda"), ("fastgen-text", "optimum")):
        if ours in names and theirs in names:
            a, b = (np.load(folder / f"{name}.npy").astype(np.float64) for name in (ours, theirs))
            error = float(np.square(a - b).mean())
            found[f"{ours} and {theirs}"] = 99.0 if error == 0 else float(10 * np.log10(255**2 / error))
    return found


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Compare the speed of fastgen with its peers.")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--ip-adapter")
    parser.add_argument("--backend", default="onnxruntime", help="of fastgen's engine")
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS, help="of the engine and of diffusers")
    parser.add_argument("--size", type=int, help="side of the images; default: the model's own")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=7.5)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="processes of every contender")
    parser.add_argument("--repeats", type=int, default=2, help="timed runs in each process")
    parser.add_argument("--budget", type=float, default=math.inf, help="seconds after which no other turn begins")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--openvino-python", default=sys.executable, help="of an environment with optimum-intel")
    parser.add_argument("--optimum-site", type=Path, help="folder that optimum-onnx was installed into with --target")
    parser.add_argument("--work", type=Path, help="default: out/bench/MODEL")
    parser.add_argument("--out", type=Path, help="default: bench/results/throughput-MODEL[-PRECISION].json")
    return parser.parse_args(words)


def main() -> None:
    """Measure, print the table, write the JSON."""
    options = parse()
    options.work = options.work or Path("out/bench") / Path(options.model).name
    options.work.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "bench/throughput.py", *sys.argv[1:]])
    machine = hardware(*PACKAGES)
    print(f"command:  {command}\nhardware: {', '.join(f'{k} {v}' for k, v in machine.items())}")
    work = make_work(options, options.work.resolve())
    times, versions = measure(work, options, options.work.resolve())
    found = summary(times, len(work["rows"]))
    settings = {key: work[key] for key in SETTINGS} | {"rows": len(work["rows"])}
    report = {
        "command": command,
        "hardware": machine,
        "model": Path(work["model"]).name,
        "settings": settings,
        "versions": versions,
        "results": found,
        "psnr_db": agreement(options.work, times),
    }
    _print(found)
    precision = "" if options.precision == "fp32" else f"-{options.precision}"
    name = f"throughput-{report['model']}{precision}.json"
    path = options.out or ROOT / "bench" / "results" / name
    print(f"wrote {atomic_write_text(path, json.dumps(report, indent=2) + chr(10))}")


def _print(found: dict[str, dict[str, float]]) -> None:
    print(f"{'':19}{'images/s':>10}{'min':>8}{'max':>8}{'x dalda':>9}{'fastgen x':>11}{'no adapter x':>14}")
    for name, row in sorted(found.items(), key=lambda item: -item[1]["images_per_second"]):
        ratios = (row.get(key) for key in ("over_dalda", "fastgen_over_it", "no_adapter_over_it"))
        shown = "".join(f"{'–' if r is None else f'{r:.2f}':>{w}}" for r, w in zip(ratios, (9, 11, 14), strict=True))
        print(f"{name:19}{row['images_per_second']:10.3f}{row['min']:8.3f}{row['max']:8.3f}{shown}")


if __name__ == "__main__":
    main()
