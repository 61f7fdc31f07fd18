"""What a network is fed with: cached features, or images that are transformed anew at every draw."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fastgen.train.backbone import Backbone
from fastgen.train.data import ImageSource
from fastgen.train.head import new_head
from fastgen.train.network import make_head, new_network
from fastgen.train.recipe import Recipe
from fastgen.train.sampling import streams
from fastgen.train.transforms import Transform, seeded, test_transform, train_transform

TEST_BATCH = 256


class Images(Protocol):
    """N images that can be trained on and tested with."""

    def __len__(self) -> int:
        """Return the number of images."""

    def network(self, classes: Sequence[str], recipe: Recipe, seed: int) -> nn.Module:
        """Return a new network for what the two methods below yield."""

    def training(self, rows: np.ndarray, batches: Sequence[np.ndarray], seed: int) -> Iterator[Tensor]:
        """Yield one tensor per batch; a batch holds numbers of draws, and draw k shows image rows[k]."""

    def clean(self, rows: np.ndarray) -> Iterator[Tensor]:
        """Yield the images of these rows in order, without augmentation."""


@dataclass(frozen=True, slots=True)
class CachedFeatures:
    """Features of a frozen backbone; only the head is a network.

    Attributes:
        features: float32 (N, 1 + K, D): the clean view and K augmented ones.
        backbone: where they come from; None for features without one (a head that starts at random).
    """

    features: np.ndarray
    backbone: Backbone | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.features)

    def network(self, classes: Sequence[str], recipe: Recipe, seed: int) -> nn.Module:
        """Return the head."""
        if self.backbone is None:
            return new_head(self.features.shape[2], len(classes), seed=seed)
        return make_head(self.backbone, classes, recipe, seed=seed)

    def training(self, rows: np.ndarray, batches: Sequence[np.ndarray], seed: int) -> Iterator[Tensor]:
        """Yield features (B, D); each draw takes one of the augmented views, if there are any."""
        n_views = self.features.shape[1]
        views = streams(seed)[-1].integers(min(1, n_views - 1), n_views, size=len(rows))
        features = torch.from_numpy(np.ascontiguousarray(self.features))
        row, view = torch.from_numpy(rows), torch.from_numpy(views)
        for batch in batches:
            yield features[row[batch], view[batch]]

    def clean(self, rows: np.ndarray) -> Iterator[Tensor]:
        """Yield the clean features of all rows as one batch."""
        yield torch.from_numpy(np.ascontiguousarray(self.features[rows, 0]))


@dataclass(frozen=True, slots=True)
class Pixels:
    """Images that are decoded and transformed whenever they are drawn.

    Attributes:
        sources: images one after another.
        backbone: size and normalisation, and the network.
        recipe: which transform.
    """

    sources: tuple[ImageSource, ...]
    backbone: Backbone
    recipe: Recipe

    def __len__(self) -> int:
        """Return the number of images."""
        return sum(len(source) for source in self.sources)

    def network(self, classes: Sequence[str], recipe: Recipe, seed: int) -> nn.Module:
        """Return backbone and head."""
        return new_network(self.backbone, classes, recipe, seed=seed)

    def training(self, rows: np.ndarray, batches: Sequence[np.ndarray], seed: int) -> Iterator[Tensor]:
        """Yield images (B, 3, S, S), each transformed with random numbers of (seed, number of the draw)."""
        drawn = _Drawn(self.sources, rows, train_transform(self.recipe, self.backbone), seed)
        yield from _loader(drawn, [batch.tolist() for batch in batches], self.backbone.device)

    def clean(self, rows: np.ndarray) -> Iterator[Tensor]:
        """Yield images (B, 3, S, S) as they are tested."""
        numbers = [batch.tolist() for batch in _chunks(np.arange(len(rows)), TEST_BATCH)]
        drawn = _Drawn(self.sources, rows, test_transform(self.recipe, self.backbone), 0)
        yield from _loader(drawn, numbers, self.backbone.device)


def _chunks(values: np.ndarray, size: int) -> list[np.ndarray]:
    return [values[start : start + size] for start in range(0, len(values), size)]


class _Drawn(Dataset):
    """Draw number -> tensor."""

    def __init__(self, sources: Sequence[ImageSource], rows: np.ndarray, transform: Transform, seed: int) -> None:
        self.sources, self.rows, self.transform, self.seed = sources, rows, transform, seed
        self.starts = np.cumsum([0, *(len(source) for source in sources)])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Tensor:
        row = int(self.rows[number])
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        image = self.sources[part].image(row - int(self.starts[part]))
        with seeded(self.seed, number):
            return self.transform(image)


def _loader(drawn: _Drawn, batches: list[list[int]], device: str) -> DataLoader:
    """Workers where a GPU waits for them; without one, the cores have enough to do."""
    workers = min(8, os.cpu_count() or 1) if device.startswith("cuda") else 0
    return DataLoader(drawn, batch_sampler=batches, num_workers=workers, pin_memory=workers > 0)
