"""A small bank with references, and `run` in a process of its own that can be killed."""

import json
import multiprocessing
import os
import sys
import time

import numpy as np
import torch
from PIL import Image

from fastgen.errors import FastgenError
from fastgen.production.run import run

FORK = multiprocessing.get_context("fork")
CLASSES = ("cat", "dog")


def write_bank(folder, sentences=3):
    """toy.jsonl with its references: two for each of two classes, and a last row without one; returns its path."""
    for label, name in enumerate(CLASSES):
        (folder / "refs" / name).mkdir(parents=True)
        for index in range(2):
            pixels = np.random.default_rng(10 * label + index).integers(0, 256, (40, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "refs" / name / f"{index}.png")
    defaults = {
        "refs": "refs",
        "policy": "uniform",
        "steps": 2,
        "guidance_scale": 2.0,
        "negative_prompt": "lowres",
    }
    lines = [{"fastgen_bank": 1, "name": "toy", "classes": CLASSES, "defaults": defaults}]
    for index in range(sentences):
        for name in CLASSES:
            lines.append({"id": f"{name}-{index}", "class": name, "prompt": f"a {name}, number {index}"})
    lines.append({"id": "plain", "class": "cat", "prompt": "a cat", "lambda": None, "guidance_scale": 1.0, "seed": 5})
    path = folder / "toy.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def start(bank, out, **arguments):
    """Run in a process of its own that can be killed; ends with the command's exit code."""

    def child():
        os.setsid()
        torch.set_num_threads(1)  # a forked OpenMP pool hangs
        try:
            run(bank, out=out, quiet=True, **arguments)
        except FastgenError as error:
            print(error, file=sys.stderr)
            os._exit(error.exit_code)
        os._exit(0)

    process = FORK.Process(target=child)
    process.start()
    return process


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.005)
