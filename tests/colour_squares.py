"""Class folders of noisy squares, one colour per class."""

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 40, 200), "red": (200, 40, 40)}


def square(name, seed, noise=40):
    rng = np.random.default_rng(seed)
    picture = np.clip(np.array(COLOURS[name]) + rng.integers(-noise, noise + 1, (16, 16, 3)), 0, 255)
    return picture.astype(np.uint8)


def make_images(root, count, start=0):
    for name in COLOURS:
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(square(name, start + i)).save(root / name / f"{i}.png")
    return root
