"""Images -> features of a frozen backbone, each image in several views, cached on disk."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track

from fastgen.files import atomic_file, sha256_json
from fastgen.train.backbone import Backbone
from fastgen.train.data import ImageSource
from fastgen.train.transforms import FLIP, ROTATION

BATCH = 64


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """Features on disk, found again by (backbone weights, images, transform).

    Because the backbone is frozen, augmentation happens before it and can be cached only as a finite number
    of views: each image has `views` augmented ones, drawn once, where online augmentation would draw a new
    one at every step. A view is fixed by its number and the image's position.

    Attributes:
        folder: where the files lie.
        backbone: the network.
        views: number K of augmented views per image, >= 0; view 0 is always the clean image.
    """

    folder: Path
    backbone: Backbone
    views: int

    def get(self, source: ImageSource, *, augmented: bool = True) -> np.ndarray:
        """Features of all images; computed only if they are not on disk.

        Args:
            source: the images.
            augmented: whether the K augmented views are needed, or only the clean one.

        Returns:
            float32 (N, 1 + K, D), or (N, 1, D) without augmentation; a memory map whose file stays as it is.

        Raises:
            ReferenceImageError: if an image cannot be read.
            OutputError: if the cache cannot be written.
        """
        views = 1 + (self.views if augmented else 0)
        path = self.folder / f"{self._key(source, views)}.npy"
        if not path.is_file():
            self._write(path, source, views)
        return np.load(path, mmap_mode="c")

    def _key(self, source: ImageSource, views: int) -> str:
        b = self.backbone
        transform = [b.size, b.mean, b.std, views, FLIP, ROTATION, "squash bilinear"]
        return sha256_json([b.sha256, source.sha256, transform])[:32]

    def _write(self, path: Path, source: ImageSource, views: int) -> None:
        shape = (len(source), views, self.backbone.dim)
        with atomic_file(path) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for batch in _batches(source, views, self.backbone.size):
                file.write(encode(batch, self.backbone).astype("<f4").tobytes())


def _batches(source: ImageSource, views: int, size: int) -> Iterator[list[Image.Image]]:
    """All views of all images, squashed to `size` pixels, image by image, in lists of at most BATCH."""
    batch: list[Image.Image] = []
    images = track(source.images(), "features", len(source), disable=not sys.stderr.isatty(), transient=True)
    for position, image in enumerate(images):
        square = squash(image, size)
        for view in range(views):
            batch.append(augment(square, position, view))
            if len(batch) == BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


def squash(image: Image.Image, size: int) -> Image.Image:
    """The image as a square of `size` pixels; its shape is not kept, as in DALDA's trainer."""
    return image.resize((size, size), Image.Resampling.BILINEAR)


def augment(image: Image.Image, position: int, view: int) -> Image.Image:
    """One view of an image: view 0 as it is, every other flipped and rotated at random.

    Args:
        image: RGB.
        position: of the image in its source; with `view` it fixes the random numbers.
        view: 0 for clean.

    Returns:
        RGB, same size; corners that a rotation opens are black, as in torchvision.
    """
    if view == 0:
        return image
    rng = np.random.default_rng((position, view))
    if rng.random() < FLIP:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.rotate(float(rng.uniform(-ROTATION, ROTATION)), Image.Resampling.BILINEAR)


def encode(images: list[Image.Image], backbone: Backbone) -> np.ndarray:
    """Features of RGB images: squashed to the backbone's square, normalised, encoded; float32 (B, D)."""
    squashed = [np.asarray(squash(image, backbone.size), np.float32) for image in images]
    mean, std = np.array(backbone.mean, np.float32), np.array(backbone.std, np.float32)
    pixels = (np.stack(squashed) / np.float32(255) - mean) / std
    tensor = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()).to(backbone.device)
    return backbone.encode(tensor).cpu().numpy()
