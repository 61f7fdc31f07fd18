"""Output folders as PyTorch data sets: by index (`ShardDataset`), or as a shuffled stream (`ShardStream`).

Only rows with status good are in them. Files are opened in the process that reads them, so that any number of workers,
forked or spawned, may do so. Read shards without torch: `fastgen.shards.read.open_output`.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from fastgen.errors import FastgenError
from fastgen.shards.read import Output, open_output
from fastgen.shards.shuffle import BlockOrder, share
from fastgen.shards.stored import StoredImage, stored_image

Transform = Callable[[torch.Tensor], Any]

BUDGET = 256 << 20
BLOCK = 32
SPARE = 3
"""Uncompressed images that fit beside a stream's buffer: one being read, two copies of the one handed out."""

OBJECTS = 256
"""Bytes of Python objects around each image that waits in a buffer."""


class _Examples:
    """What both data sets have: an output, its good rows, and how a row becomes an example."""

    def __init__(self, out: str | Path, transform: Transform | None, soft_labels: bool) -> None:
        self.output: Output = open_output(out)
        self.transform = transform
        self.soft_labels = soft_labels
        self._rows = self.output.good
        if not len(self._rows):
            raise FastgenError(f"{out}: none of its {len(self.output)} rows is good; see fastgen verify {out}")

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; labels count in them."""
        return self.output.classes

    def _example(self, row: int, image: np.ndarray) -> tuple[Any, ...]:
        pixels = torch.from_numpy(image).permute(2, 0, 1).contiguous()
        label = int(self.output.labels[row])
        found = pixels if self.transform is None else self.transform(pixels)
        return (found, label, self._soft(row, label)) if self.soft_labels else (found, label)

    def _soft(self, row: int, label: int) -> torch.Tensor:
        weights = torch.zeros(len(self.classes))
        for name, weight in self.output[row].get("labels") or [[label, 1.0]]:
            weights[name] += weight
        return weights


class ShardDataset(_Examples, Dataset):
    """The good rows of an output folder by index, in plan order; any sampler shuffles them, uniformly if it does.

    Every example is read by itself: one image is in memory at a time. On disks that are slow at reading here and there
    (network file systems, spinning disks) `ShardStream` is faster.

    Attributes:
        output: the opened folder.
        labels: class of every example, int64 (len(self),); for samplers that balance classes.
    """

    def __init__(self, out: str | Path, *, transform: Transform | None = None, soft_labels: bool = False) -> None:
        """Index the folder.

        Args:
            out: the folder that `fastgen run` wrote, finished or not.
            transform: gets every image as uint8 (3, H, W), such as transforms of torchvision.transforms.v2.
            soft_labels: examples have a third part: the row's `labels` as float32 (classes,), or its class as one-hot.

        Raises:
            OutputError: no shards, or one is damaged.
            FastgenError: no row is good.
        """
        super().__init__(out, transform, soft_labels)
        self.labels: np.ndarray = self.output.labels[self._rows]

    def __len__(self) -> int:
        """Return the number of good rows."""
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Return (image, label) or (image, label, soft label) of good row `index`.

        The image is uint8 (3, H, W), RGB, or what the transform made of it; the label is an int.

        Raises:
            IndexError: there is no such row.
            OutputError: the stored image is damaged.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        row = int(self._rows[index])
        return self._example(row, self.output.image(row))


class ShardStream(_Examples, IterableDataset):
    """The good rows of an output folder in a new order every epoch, reading forward in the files.

    What the shuffle guarantees: an epoch has every row exactly once, over all ranks and workers. Blocks of `block`
    rows that lie together in a shard come in an order that is uniformly random, by `seed` and epoch. A worker reads
    its share of them into a buffer as large as its budget, and hands out images drawn from the buffer at random: what
    follows one another comes from any of the blocks in the buffer. A share that fits the budget comes in a uniformly
    random order; otherwise an image waits in the buffer for as many others as fit into it, on average. The buffer
    holds images as the shards do, compressed, and the first image comes when it is full.

    Ranks get shares that differ by one row at most; their rows do not depend on the number of workers, but the order
    does. The order is the same for the same seed, epoch, ranks, workers and budget.
    """

    def __init__(
        self,
        out: str | Path,
        *,
        transform: Transform | None = None,
        soft_labels: bool = False,
        seed: int = 0,
        rank: int | None = None,
        world: int | None = None,
        even: bool = False,
        budget: int = BUDGET,
        block: int = BLOCK,
    ) -> None:
        """Index the folder.

        Args:
            out: the folder that `fastgen run` wrote, finished or not.
            transform: gets every image as uint8 (3, H, W), such as transforms of torchvision.transforms.v2.
            soft_labels: examples have a third part: the row's `labels` as float32 (classes,), or its class as one-hot.
            seed: of the order, >= 0.
            rank, world: which share of every epoch is this process's; None asks torch.distributed, else 0 of 1.
            even: give every rank the same number of rows, as DistributedDataParallel needs: up to world - 1 rows are
                left out, others in every epoch.
            budget: bytes of images that this rank holds at any moment, its workers together. Batches that a
                DataLoader has prefetched are not among them (prefetch_factor x num_workers batches).
            block: rows that are read together; fewer mix better, more read faster from slow disks.

        Raises:
            OutputError: no shards, or one is damaged.
            FastgenError: no row is good, or an argument is wrong.
        """
        super().__init__(out, transform, soft_labels)
        self.seed, self.even, self.budget = seed, even, budget
        self.rank, self.world = _place(rank, world)
        self.held = self.peak = 0
        """Bytes of images that this process's iterator holds, and the most it ever held."""
        self._order = BlockOrder(self.output, block)
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that persist see it change
        self._image_bytes = math.prod(self.output.image_shape)
        self._buffer_bytes(1)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration; call it before every epoch, or all have the same order."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """Return the number of examples of this rank in an epoch."""
        first, last = self._share()
        return last - first

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Yield (image, label) or (image, label, soft label), as `ShardDataset` does.

        Raises:
            OutputError: a stored image is damaged.
            FastgenError: the budget is too small for this number of workers.
        """
        worker = get_worker_info()
        part, parts = (worker.id, worker.num_workers) if worker else (0, 1)
        room, epoch = self._buffer_bytes(parts), int(self._epoch)
        start, end = self._share()
        first, last = share(end - start, part, parts)
        rows = self._order.piece(start + first, start + last, seed=self.seed, epoch=epoch)
        draw = np.random.default_rng([self.seed, epoch, self.rank, part])
        buffer: list[tuple[int, StoredImage]] = []
        self.held = 0
        for row in rows:
            file = self.output.file(int(self.output.of_file[row]))
            buffer.append((row, stored_image(file, int(self.output.places[row]))))
            self._hold(len(buffer[-1][1].data) + OBJECTS)
            while self.held > room:
                yield self._draw(buffer, draw)
        while buffer:
            yield self._draw(buffer, draw)

    def _draw(self, buffer: list[tuple[int, StoredImage]], draw: np.random.Generator) -> tuple[Any, ...]:
        """Take any image out of the buffer and decode it."""
        number = int(draw.integers(len(buffer)))
        buffer[number], buffer[-1] = buffer[-1], buffer[number]
        row, stored = buffer.pop()
        self._hold(2 * self._image_bytes)  # deflated data is decompressed, and then copied where it can be written to
        image = stored.decode()
        self._hold(-2 * self._image_bytes - len(stored.data) - OBJECTS)
        return self._example(row, image)

    def _hold(self, change: int) -> None:
        self.held += change
        self.peak = max(self.peak, self.held)

    def _share(self) -> tuple[int, int]:
        """This rank's piece of the epoch's line."""
        total = len(self._order)
        return share(total - total % self.world if self.even else total, self.rank, self.world)

    def _buffer_bytes(self, workers: int) -> int:
        """Bytes of compressed images that one worker may have waiting, beside the one it has in its hands."""
        largest = self._image_bytes + self._image_bytes // 1000 + 64  # what cannot be compressed grows a little
        room = self.budget // workers - SPARE * largest
        if room < largest + OBJECTS:
            least = workers * ((SPARE + 1) * largest + OBJECTS)
            raise FastgenError(
                f"got a budget of {self.budget} bytes for {workers} readers; allowed: {least} or more, four images of "
                "each. Give more, or take fewer workers"
            )
        return room


def _place(rank: int | None, world: int | None) -> tuple[int, int]:
    if rank is None and world is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1
    if rank is None or world is None or not 0 <= rank < world:
        raise FastgenError(f"got rank {rank} of world {world}; allowed: both, 0 <= rank < world, or neither")
    return rank, world
