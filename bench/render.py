"""How fast PetWorld pictures are drawn on one core.

Command:   OMP_NUM_THREADS=1 python bench/render.py
Hardware:  one core of an AMD EPYC (virtual), load average 1.5 on two cores
Result:    images/s: photo 369, art painting 228, cartoon 241, sketch 281, watercolor 209, pixel art 334,
           3d render 222, cyberpunk 250 (bench/results/render-cpu.json)

A picture is a random scene of the 37 Oxford-IIIT breeds with a realism of 0.4 to 0.8, as `fastgen petworld`
draws it by default, without writing it to a file. Time is the CPU time of this process, pinned to one core;
the median of several rounds counts. Waiting for other programs is not counted, but they share caches and
memory with this one and slow it down: on a busy machine the numbers are too low and vary.
"""

import argparse
import json
import os
import shlex
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.hardware import hardware  # noqa: E402
from fastgen.files import atomic_write_text  # noqa: E402
from fastgen.petworld.attributes import OXFORD_PETS, STYLES, Scene  # noqa: E402
from fastgen.petworld.render import render, sample_scene  # noqa: E402


def measure(style: str, *, count: int, rounds: int, size: int) -> float:
    """Draws `count` pictures per round; returns the median of pictures per second of CPU time."""
    scenes = [sample_scene(0, i, breeds=OXFORD_PETS, styles=(style,), realism=(0.4, 0.8)) for i in range(count)]
    _draw(scenes[:2], size)
    return statistics.median(count / _draw(scenes, size) for _ in range(rounds))


def _draw(scenes: list[Scene], size: int) -> float:
    """Seconds of CPU time for these pictures."""
    start = time.process_time()
    for scene in scenes:
        render(scene, size)
    return time.process_time() - start


def stay_on_one_core() -> None:
    """Pins this process to one core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def main() -> None:
    """Measures every style, prints a table and writes the JSON."""
    parser = argparse.ArgumentParser(description="Measure how fast PetWorld pictures are drawn on one core.")
    parser.add_argument("--count", type=int, default=100, help="pictures per style and round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per style; the median counts")
    parser.add_argument("--size", type=int, default=64, help="side of the pictures in pixels")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "render-cpu.json")
    options = parser.parse_args()
    stay_on_one_core()
    command = shlex.join(["python", "bench/render.py", *sys.argv[1:]])
    machine = hardware("numpy", "pillow") | {"cores_used": 1}
    print(f"command:  {command}\nhardware: {', '.join(f'{k} {v}' for k, v in machine.items())}")
    result = {}
    for style in STYLES:
        rate = measure(style, count=options.count, rounds=options.rounds, size=options.size)
        result[style] = round(rate, 1)
        print(f"{style:14} {rate:7.1f} images/s  {1000 / rate:6.2f} ms/image", flush=True)
    settings = {"count": options.count, "rounds": options.rounds, "size": options.size, "realism": [0.4, 0.8]}
    report = {
        "command": command,
        "hardware": machine,
        "settings": settings,
        "unit": "images per second of CPU time",
        "images_per_second": result,
    }
    print(f"wrote {atomic_write_text(options.out, json.dumps(report, indent=2) + chr(10))}")


if __name__ == "__main__":
    main()
