"""How fast the backends make images on one GPU, how much memory they take, and how near they are to torch on the CPU.

Command:   python bench/gpu.py
Hardware:  one NVIDIA GPU; refuses to run without
Result:    bench/results/<name of the GPU>.json; not run so far

For every backend and batch, in a process of its own: build the engine, then denoise and decode random prompts with
guidance, float32. `batch` counts rows of an execution; an image with guidance needs two of them. The first round is not
counted, the median of the others is. Memory is what the whole GPU has in use after the last round, so nothing else
should run on it; libraries keep what they once took, so this is also the peak.
"""

import argparse
import json
import re
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from fastgen.engine.gpu import current_gpu  # noqa: E402
from fastgen.errors import FastgenError  # noqa: E402
from fastgen.files import atomic_write_text  # noqa: E402

if TYPE_CHECKING:
    from fastgen.engine.load import Engine

BACKENDS = ("torch", "onnxruntime", "tensorrt")
BATCHES = (1, 2, 4, 8, 16, 32, 64)
MARK = "measured: "


def why_not(backend: str) -> str:
    """Say why a backend cannot use this GPU; "" if it can."""
    if backend == "onnxruntime":
        import onnxruntime

        there = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        return "" if there else "ONNX Runtime has no CUDA here; pip install onnxruntime-gpu"
    if backend == "tensorrt":
        from fastgen.engine.tensorrt_platform import require_tensorrt

        try:
            require_tensorrt()
        except FastgenError as error:
            return str(error)
    return ""


def measure(backend: str, batch: int, *, model: str, steps: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Build one engine and time it; returns what the report has of it."""
    from fastgen.engine.build import build
    from fastgen.engine.load import load_engine

    start = time.perf_counter()
    path = build(model, backend=backend, batch=batch, out=folder / f"{backend}-{batch}", say=_say)
    built = time.perf_counter() - start
    engine = load_engine(path)
    images = max(1, batch // 2)
    seconds = [_round(engine, images, steps) for _ in range(rounds + 1)][1:]
    free, total = torch.cuda.mem_get_info()
    return {
        "images_per_second": round(images / statistics.median(seconds), 3),
        "images_together": images,
        "seconds": [round(value, 4) for value in seconds],
        "unet_ms": round(1000 * _unet_seconds(engine, batch), 3),
        "gpu_memory_mib": (total - free) >> 20,
        "build_seconds": round(built, 1),
        "parity": engine.spec.parity,
        "plan": engine.spec.plan,
        "versions": engine.spec.versions,
    }


def _round(engine: "Engine", images: int, steps: int) -> float:
    """Seconds for one batch of images, from noise to pixels."""
    from fastgen.generate.denoise import Conditions, denoise
    from fastgen.generate.schedulers import Schedule

    inputs = _inputs(engine, images)
    conditions = Conditions(
        text=inputs["text_embeds"],
        image=inputs["image_embeds"],
        ip_scale=inputs["ip_scale"],
        guidance=torch.full((images,), 7.5, device=engine.device),
        negative_text=inputs["text_embeds"].flip(1),
        no_image=engine.uncond_image_embeds,
    )
    schedule = Schedule("ddim", engine.scheduler_config, steps=steps)
    _synchronize()
    start = time.perf_counter()
    engine.decode(denoise(engine.unet, inputs["sample"], schedule, conditions=conditions, generators=[]))
    _synchronize()
    return time.perf_counter() - start


def _unet_seconds(engine: "Engine", batch: int, count: int = 20) -> float:
    """Seconds for one execution of the UNet, measured over `count` of them in a row."""
    inputs = _inputs(engine, batch)
    engine.unet(**inputs)
    _synchronize()
    start = time.perf_counter()
    for _ in range(count):
        engine.unet(**inputs)
    _synchronize()
    return (time.perf_counter() - start) / count


def _inputs(engine: "Engine", rows: int) -> dict[str, torch.Tensor]:
    """Random arguments of the UNet, on the engine's device."""
    from fastgen.engine.parity import example_inputs

    part = engine.spec.components["unet"]
    return {key: value.to(engine.device) for key, value in example_inputs(part, rows=rows, vocabulary=1).items()}


def _synchronize() -> None:
    torch.cuda.synchronize()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run_apart(arguments: list[str]) -> dict[str, Any]:
    """Measure in a process of its own, so that nothing of one backend stays in the GPU's memory for the next."""
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            return json.loads(line.removeprefix(MARK))
    return {"failed": f"exit code {done.returncode}; the reason is in the output above"}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure the backends on this machine's GPU.")
    parser.add_argument("--model", default="mini", help="as in fastgen build")
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS), choices=BACKENDS)
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES), help="rows of an execution")
    parser.add_argument("--steps", type=int, default=30, help="denoising steps (DDIM)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per engine; the median counts")
    parser.add_argument("--folder", type=Path, default=ROOT / "out" / "bench-gpu", help="where engines are built")
    parser.add_argument("--out", type=Path, help="the report; default: bench/results/<name of the GPU>.json")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure everything that can run here, print a table and write the JSON."""
    options = parse()
    gpu = current_gpu()
    if gpu is None:
        sys.exit("bench/gpu.py measures an NVIDIA GPU and PyTorch finds none; run it on a machine with one")
    common = {"model": options.model, "steps": options.steps, "rounds": options.rounds, "folder": options.folder}
    if options.alone:
        try:
            print(MARK + json.dumps(measure(options.backends[0], options.batches[0], **common)), flush=True)
        except FastgenError as error:
            sys.exit(f"{options.backends[0]}: {error}")
        return
    results: dict[str, Any] = {}
    for backend in options.backends:
        if reason := why_not(backend):
            results[backend] = {"skipped": reason}
            print(f"{backend:12} skipped: {reason}", flush=True)
            continue
        results[backend] = {}
        for batch in options.batches:
            shared = [word for key, value in common.items() for word in (f"--{key}", str(value))]
            one = run_apart(["--alone", "--backends", backend, "--batches", str(batch), *shared])
            results[backend][str(batch)] = one
            shown = "failed" if "failed" in one else "{images_per_second:9.2f} images/s  {gpu_memory_mib:7} MiB"
            print(f"{backend:12} batch {batch:3}  {shown.format(**one)}", flush=True)
    report = {
        "command": shlex.join(["python", "bench/gpu.py", *sys.argv[1:]]),
        "hardware": gpu._asdict(),
        "settings": {"model": str(options.model), "steps": options.steps, "rounds": options.rounds},
        "results": results,
    }
    name = re.sub(r"[^a-z0-9]+", "-", gpu.name.lower()).strip("-")
    out = options.out or ROOT / "bench" / "results" / f"{name}.json"
    print(f"wrote {atomic_write_text(out, json.dumps(report, indent=2) + chr(10))}")


if __name__ == "__main__":
    main()
