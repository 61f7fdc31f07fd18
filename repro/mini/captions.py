"""Ground truth and captions of the training pictures as tensors, drawn once: a training step only indexes them.

Every picture gets several captions of a kind, each a function of (kind, picture, number). Tokens are those of Stable
Diffusion's pipeline: 77, with start, end and padding.
"""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizerFast

from fastgen.petworld.attributes import BACKGROUNDS, LIGHTS, OXFORD_PETS, POSES, SIDES, STYLES, Scene
from repro.mini.data import TRAIN_SEED, training_scene
from repro.mini.tokenizer import make_tokenizer

LENGTH = 77
CHUNK = 1000

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "breed": OXFORD_PETS,
    "background": BACKGROUNDS,
    "pose": POSES,
    "style": STYLES,
    "light": LIGHTS,
    "side": SIDES,
}
"""What captions can mention, and the values in the order of their numbers."""

Write = Callable[[Scene, np.random.Generator], str]


def caption_rng(kind: str, picture: int, number: int) -> np.random.Generator:
    """The randomness of one caption."""
    return np.random.default_rng([sum(kind.encode()), len(kind), picture, number])


def scene_numbers(start: int, stop: int) -> np.ndarray:
    """Ground truth of the training pictures, uint8 (N, 6): the attributes' values as numbers."""
    scenes = (training_scene(TRAIN_SEED, i) for i in range(start, stop))
    return np.array([[v.index(getattr(s, k)) for k, v in ATTRIBUTES.items()] for s in scenes], np.uint8)


def caption_tokens(kind: str, write: Write, each: int, folder: Path, start: int, stop: int) -> np.ndarray:
    """Token ids, int16 (N, each, 77), of the captions that `write` gives the training pictures."""
    tokenizer = CLIPTokenizerFast.from_pretrained(folder)  # the ids of CLIPTokenizer, four times as fast
    rows = []
    for i in range(start, stop):
        scene = training_scene(TRAIN_SEED, i)
        texts = [write(scene, caption_rng(kind, i, number)) for number in range(each)]
        rows.append(tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True).input_ids)
    return np.array(rows, np.int16)


def load_captions(work: Path, kind: str, write: Write, *, each: int, count: int) -> Tensor:
    """Token ids of the first `count` training pictures, int16 (count, each, 77); made on the first call and kept.

    Args:
        work: where they are kept.
        kind: names the file and the random streams.
        write: a function of a module (it is called in other processes).
        each: captions of every picture.
        count: pictures.
    """
    make_tokenizer(work / "tokenizer")
    compute = partial(caption_tokens, kind, write, each, work / "tokenizer")
    return kept_table(work / f"captions-{kind}-{count}x{each}.npy", compute, count)


def load_scene_numbers(work: Path, count: int) -> Tensor:
    """`scene_numbers` of the first `count` training pictures; made on the first call and kept."""
    return kept_table(work / f"scenes-{count}.npy", scene_numbers, count)


def kept_table(path: Path, compute: Callable[[int, int], np.ndarray], count: int) -> Tensor:
    """The rows `compute(0, count)`, computed in pieces by all cores on the first call and kept in a file."""
    if not path.exists():
        starts = range(0, count, CHUNK)
        stops = [min(count, start + CHUNK) for start in starts]
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            table = np.concatenate(list(pool.map(compute, starts, stops)))
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.save(file, table)
        part.rename(path)
    return torch.from_numpy(np.load(path))
