"""Shards as PyTorch data sets: every good row once per epoch, whatever ranks, workers and budgets there are."""

import gc
import tracemalloc

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, WeightedRandomSampler

from fastgen.dataset import ShardDataset, ShardStream
from fastgen.errors import FastgenError, OutputError
from tests.output_folder import make_row, write_output
from tests.shards.shard_samples import image_of, make_output

ROWS = 60
BAD = (7, 31)


def numbered(index: int) -> np.ndarray:
    """An image that says which row it is of."""
    image = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    image[0, 0] = index
    return image


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """60 rows in shards of 16, two of them failed, two with soft labels."""
    rows = [make_row(i, class_=("blue", "red")[i % 2], image=numbered(i), status=int(i in BAD)) for i in range(ROWS)]
    rows[4]["labels"] = [[0, 0.25], [1, 0.75]]
    return write_output(tmp_path_factory.mktemp("shards") / "out", rows, per_shard=16)


GOOD = [i for i in range(ROWS) if i not in BAD]


def seen(batches) -> list[int]:
    """Row numbers of the images of a loader, whose pixels are checked."""
    found = []
    for images, labels in batches:
        for image, label in zip(images, labels, strict=True):
            index = int(image[0, 0, 0])
            assert (image.numpy() == numbered(index).transpose(2, 0, 1)).all() and int(label) == index % 2
            found.append(index)
    return found


def loader(data, **options) -> DataLoader:
    return DataLoader(data, batch_size=8, **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_by_index_every_good_row_is_there_once(out, workers):
    data = ShardDataset(out)
    assert len(data) == len(GOOD) and data.classes == ("blue", "red")
    assert seen(loader(data, num_workers=workers)) == GOOD
    shuffled = seen(loader(data, num_workers=workers, shuffle=True))
    assert sorted(shuffled) == GOOD and shuffled != GOOD
    assert data.labels.tolist() == [i % 2 for i in GOOD]


@pytest.mark.parametrize("budget", [1 << 20, 8000])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_has_every_good_row_once_per_epoch(out, workers, budget):
    stream = ShardStream(out, budget=budget, block=4)
    orders = []
    for epoch in range(3):
        stream.set_epoch(epoch)
        orders.append(seen(loader(stream, num_workers=workers)))
        assert sorted(orders[-1]) == GOOD
    assert len(set(map(tuple, orders))) == 3
    stream.set_epoch(1)
    assert seen(loader(stream, num_workers=workers)) == orders[1]


def test_workers_that_persist_see_the_epoch_change(out):
    stream = ShardStream(out)
    batches = loader(stream, num_workers=2, persistent_workers=True)
    orders = []
    for epoch in range(2):
        stream.set_epoch(epoch)
        orders.append(seen(batches))
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]) == GOOD


@pytest.mark.slow  # loading torch again takes seconds
def test_spawned_workers_read_too(out):
    stream = ShardStream(out)
    stream.set_epoch(5)
    forked = seen(loader(stream, num_workers=1))
    assert seen(loader(stream, num_workers=1, multiprocessing_context="spawn")) == forked


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [2, 5])
def test_ranks_share_an_epoch_without_overlap(out, world, workers):
    pieces = []
    for rank in range(world):
        stream = ShardStream(out, rank=rank, world=world, seed=3, block=4)
        stream.set_epoch(2)
        pieces.append(seen(loader(stream, num_workers=workers)))
        assert len(pieces[-1]) == len(stream)
    assert sorted(sum(pieces, [])) == GOOD
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


def test_even_ranks_have_the_same_number_of_rows_and_leave_out_others_every_epoch(out):
    left_out = set()
    for epoch in range(6):
        found = []
        for rank in range(4):
            stream = ShardStream(out, rank=rank, world=4, even=True, block=4)
            stream.set_epoch(epoch)
            found.append(seen(loader(stream)))
        assert {len(rows) for rows in found} == {len(GOOD) // 4}
        assert len(set(sum(found, []))) == len(GOOD) - 2
        left_out.add(frozenset(set(GOOD) - set(sum(found, []))))
    assert len(left_out) > 3


def test_rank_and_world_come_from_torch_distributed(out, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        stream = ShardStream(out)
        assert (stream.rank, stream.world) == (0, 1)
    finally:
        torch.distributed.destroy_process_group()


def test_the_order_is_shuffled_beyond_blocks(out):
    """Neighbours in the files are rarely neighbours in the epoch; without the buffer 3 of 4 would be."""
    stream, near = ShardStream(out, block=4), 0
    for epoch in range(5):
        stream.set_epoch(epoch)
        order = np.array(seen(loader(stream)))
        near += int((np.diff(order) == 1).sum())
    assert near < 25  # expected: 5; in blocks 215


def most_memory_of(stream: ShardStream, count: int) -> int:
    """Bytes that Python allocated, at most, while the stream was read."""
    sum(1 for _ in stream)  # what libraries keep is there now
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        assert sum(1 for _ in stream) == count
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def test_a_stream_stays_within_its_budget(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (200, 64, 64, 3), dtype=np.uint8)
    rows = [make_row(i, image=image) for i, image in enumerate(images)]
    budget = 400_000  # 32 images of 200
    stream = ShardStream(write_output(tmp_path / "out", rows, side=64, compression="gzip"), budget=budget)
    most = most_memory_of(stream, 200)
    assert 0.8 * budget < stream.peak <= budget and stream.held == 0
    assert most < budget + 100_000  # Python's and h5py's own objects


def test_the_budget_counts_what_is_around_images_of_a_few_bytes(tmp_path):
    rows = [make_row(i, image=np.full((8, 8, 3), i % 256, np.uint8)) for i in range(1200)]
    stream = ShardStream(write_output(tmp_path / "out", rows, side=8, compression="gzip"), budget=100_000)
    assert most_memory_of(stream, 1200) < 150_000  # all rows, 25 bytes each, would take 300 kB


def test_workers_share_the_budget(out):
    stream = ShardStream(out, budget=5000, block=4)
    assert len(seen(loader(stream))) == len(GOOD)
    with pytest.raises(FastgenError, match="got a budget of 5000 bytes for 2 readers; allowed: .* fewer workers"):
        seen(loader(stream, num_workers=2))


def test_soft_labels_come_from_the_row_or_are_one_hot(out):
    data = ShardDataset(out, soft_labels=True)
    assert data[4][2].tolist() == [0.25, 0.75] and data[5][2].tolist() == [0.0, 1.0]
    assert data[4][2].dtype == torch.float32
    images, labels, soft = next(iter(loader(ShardStream(out, soft_labels=True))))
    assert images.shape == (8, 3, 16, 16) and images.dtype == torch.uint8 and soft.shape == (8, 2) and len(labels) == 8


def test_the_transform_gets_the_image(out):
    def half(image):
        assert image.dtype == torch.uint8 and image.shape == (3, 16, 16)
        return image.float() / 2

    image, label = ShardDataset(out, transform=half)[-1]
    assert label == 1 and (image.numpy() == numbered(59).transpose(2, 0, 1) / 2).all()
    assert next(iter(ShardStream(out, transform=half)))[0].dtype == torch.float32


def test_shards_of_a_run_read_the_same(tmp_path):
    make_output(tmp_path / "out", rows=11, world=3, shard_size=2)
    data = ShardDataset(tmp_path / "out")
    assert all((data[i][0].permute(1, 2, 0).numpy() == image_of(i)).all() for i in range(11))
    found = [image.permute(1, 2, 0).numpy() for image, _ in ShardStream(tmp_path / "out")]
    assert len(found) == 11 and all(any((image_of(i) == image).all() for image in found) for i in range(11))


def test_samplers_take_the_labels(out):
    data = ShardDataset(out)
    weights = np.where(data.labels == 0, 1.0, 0.0)
    assert all(i % 2 == 0 for i in seen(loader(data, sampler=WeightedRandomSampler(weights, 30))))


def test_bad_arguments_and_damage_are_named(out, tmp_path):
    with pytest.raises(FastgenError, match="got rank 2 of world 2; allowed"):
        ShardStream(out, rank=2, world=2)
    with pytest.raises(FastgenError, match="got rank 1 of world None"):
        ShardStream(out, rank=1)
    with pytest.raises(FastgenError, match="got a budget of 1000 bytes for 1 readers; allowed: "):
        ShardStream(out, budget=1000)
    with pytest.raises(IndexError, match="example 58 of 58"):
        ShardDataset(out)[58]
    failed = write_output(tmp_path / "failed", [make_row(0, status=1)])
    with pytest.raises(FastgenError, match="none of its 1 rows is good"):
        ShardDataset(failed)
    damaged = write_output(tmp_path / "damaged", [make_row(i) for i in range(3)], compression="gzip")
    with h5py.File(damaged / "shards" / "00000-r000.h5", "r+") as file:
        file["image"].id.write_direct_chunk((1, 0, 0, 0), b"x" * 50)
    with pytest.raises(OutputError, match="00000-r000.h5: the image of row 1 is damaged"):
        list(ShardStream(damaged))
