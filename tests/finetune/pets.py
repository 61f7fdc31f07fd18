"""A few small pictures in class folders, with captions, for fine-tuning tests."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

PLACES = [("grass", "sitting"), ("snow", "running"), ("street", "lying")]


def make_pets(folder: Path, *, classes=("Big_Cat", "Red Dog"), shots: int = 3, size=(64, 64), captions: bool = True):
    """Write class folders of smooth random pictures, and captions.jsonl; returns `folder`."""
    rng = np.random.default_rng(0)
    lines = []
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(shots):
            coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            coarse[..., number % 3] = 240
            picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
            picture.save(folder / name / f"{i}.png")
            background, pose = PLACES[i % len(PLACES)]
            lines.append({"file_name": f"{name}/{i}.png", "background": background, "pose": pose})
    if captions:
        (folder / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
