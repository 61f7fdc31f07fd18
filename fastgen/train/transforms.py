"""From a PIL image to a normalised tensor: the papers' augmentations, and their plain counterparts for testing."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastgen.train.backbone import Backbone
from fastgen.train.recipe import Recipe

FLIP = 0.5
ROTATION = 15.0
"""DALDA's trainer: chance of a horizontal flip, and largest rotation in degrees."""

MAE_CROP = 224 / 256
"""Side of the centre crop over the shorter side of the image, where MAE's recipe tests."""

Transform = Callable[[Image.Image], Tensor]


def train_transform(recipe: Recipe, backbone: Backbone) -> Transform:
    """The random transform of a training image.

    `dalda`: squash to the square, flip, rotate by up to 15 degrees. `datadream`: RandAugment, random crop of 25 to
    100 % of the area, flip, colour jitter, grey, blur, solarise. `mae`: timm's random crop, flip,
    rand-m9-mstd0.5-inc1 and random erasing. `none`: squash alone.

    Args:
        recipe: `transform` and `random_erase`.
        backbone: size, mean and std.

    Returns:
        PIL image (RGB) -> float32 (3, S, S); its random numbers come from torch's, Python's and numpy's global
        generators, see `seeded`.
    """
    from torchvision.transforms import v2

    size, bilinear = backbone.size, v2.InterpolationMode.BILINEAR
    finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(backbone.mean, backbone.std)]
    squash = v2.Resize((size, size), interpolation=bilinear)
    if recipe.transform == "mae":
        from timm.data import create_transform

        return create_transform(
            size, is_training=True, color_jitter=None, auto_augment="rand-m9-mstd0.5-inc1", interpolation="bicubic",
            mean=backbone.mean, std=backbone.std, re_prob=recipe.random_erase, re_mode="pixel", re_count=1,
        )  # fmt: skip
    if recipe.transform == "datadream":
        return v2.Compose(
            [
                v2.RandAugment(),
                v2.RandomResizedCrop(size, scale=(0.25, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
                v2.RandomHorizontalFlip(),
                v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
                v2.RandomGrayscale(p=0.2),
                v2.RandomApply([v2.GaussianBlur(2 * max(1, size // 20) + 1, sigma=(0.1, 2.0))], p=0.2),
                v2.RandomSolarize(threshold=128, p=0.2),
                *finish,
            ]
        )
    if recipe.transform == "dalda":
        turn = v2.RandomRotation(ROTATION, interpolation=bilinear)
        return v2.Compose([squash, v2.RandomHorizontalFlip(FLIP), turn, *finish])
    return v2.Compose([squash, *finish])


def test_transform(recipe: Recipe, backbone: Backbone) -> Transform:
    """The transform of a test image: squashed, or for `datadream` and `mae` resized and cropped in the centre."""
    from torchvision.transforms import v2

    size = backbone.size
    finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(backbone.mean, backbone.std)]
    if recipe.transform in ("datadream", "mae"):
        side = size if recipe.transform == "datadream" else int(size / MAE_CROP)
        resize = v2.Resize(side, interpolation=v2.InterpolationMode.BICUBIC)
        return v2.Compose([resize, v2.CenterCrop(size), *finish])
    return v2.Compose([v2.Resize((size, size), interpolation=v2.InterpolationMode.BILINEAR), *finish])


test_transform.__test__ = False  # type: ignore[attr-defined]  # pytest must not take it for a test


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seeds the global generators from a key of whole numbers, and puts those of the CPU back afterwards.

    What is drawn inside depends on the key alone: not on the process, on what was drawn before or on a restart.
    """
    number = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    python, numpy, torch_state = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    # Not torch.manual_seed: without a GPU it notes down a stack trace at every call, for when CUDA may start.
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)
    random.seed(number)
    np.random.seed(number % 2**32)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.default_generator.set_state(torch_state)
