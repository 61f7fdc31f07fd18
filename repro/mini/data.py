"""Renders the generator's training set once: `python -m repro.mini.data --work out/mini --count 60000`.

60 000 pictures: 740 MB, about 5 minutes on two cores, 40 seconds on 16. Half of them are photos and half are in the
seven other styles; realism is below 0.15 for four pictures of five, so the "real" pictures of an experiment (realism
0.5 and more) stay harder than what the generator knows.
"""

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from fastgen.petworld.attributes import OXFORD_PETS, STYLES, Scene
from fastgen.petworld.breeds import PRETRAINING_PETS
from fastgen.petworld.render import render, sample_scene

TRAIN_SEED = 1_000
ORACLE_SEED = 2_000
RESNET_SEED = 3_000
TEST_SEED = 4_000
CHUNK = 500


def training_scene(seed: int, index: int, breeds: tuple[str, ...] = OXFORD_PETS) -> Scene:
    """Scene `index` of the training distribution: every breed, pose and place; half photos, mostly low realism."""
    styles = ("photo",) if index % 2 else STYLES[1:]
    realism = (0.15, 0.6) if index % 10 in (3, 6) else (0.0, 0.15)
    return sample_scene(seed, index, breeds=breeds, styles=styles, realism=realism)


def _render_chunk(seed: int, breeds: tuple[str, ...], start: int, stop: int) -> np.ndarray:
    return np.stack([render(training_scene(seed, i, breeds)) for i in range(start, stop)])


def _rendered(work: Path, seed: int) -> np.ndarray:
    """The longest set of this seed that was rendered already: every picture is a function of its number."""
    paths = sorted(work.glob(f"images-{seed}-*.npy"), key=lambda path: path.stat().st_size)
    if not paths:
        return np.empty((0, 64, 64, 3), np.uint8)
    return np.load(paths[-1], mmap_mode="c")  # torch takes no read-only arrays


def load_images(work: Path, seed: int, count: int, *, breeds: tuple[str, ...] = OXFORD_PETS) -> np.ndarray:
    """The rendered pictures, uint8 (count, 64, 64, 3), memory-mapped; rendered on the first call and kept."""
    known = _rendered(work, seed)
    if len(known) < count:
        work.mkdir(parents=True, exist_ok=True)
        path = work / f"images-{seed}-{count}.npy"
        part = path.with_suffix(".part")
        images = np.lib.format.open_memmap(part, "w+", np.uint8, (count, 64, 64, 3))
        images[: len(known)] = known
        starts = range(len(known), count, CHUNK)
        stops = [min(count, start + CHUNK) for start in starts]
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            for start, chunk in zip(starts, pool.map(partial(_render_chunk, seed, breeds), starts, stops), strict=True):
                images[start : start + len(chunk)] = chunk
                print(f"rendered {start + len(chunk)} of {count}", flush=True)
        images.flush()
        part.rename(path)
        known = _rendered(work, seed)
    return known[:count]


def main() -> None:
    """Renders the training set, and the sets of the oracle and of the ResNet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("out/mini"))
    parser.add_argument("--count", type=int, default=60_000)
    args = parser.parse_args()
    load_images(args.work, TRAIN_SEED, args.count)
    load_images(args.work, ORACLE_SEED, 14_000)
    load_images(args.work, RESNET_SEED, 9_600, breeds=PRETRAINING_PETS)


if __name__ == "__main__":
    main()
