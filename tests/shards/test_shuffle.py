"""The order of an epoch: every row once, in pieces that do not overlap, block by block."""

import numpy as np
import pytest

from fastgen.errors import FastgenError
from fastgen.shards.read import open_output
from fastgen.shards.shuffle import BlockOrder, share
from tests.output_folder import make_row, write_output


@pytest.fixture
def output(tmp_path):
    rows = [make_row(i, status=int(i in (3, 17))) for i in range(40)]
    return open_output(write_output(tmp_path / "out", rows, per_shard=15))


@pytest.mark.parametrize("parts", [1, 3, 7, 50])
def test_the_pieces_of_all_parts_are_every_good_row_once(output, parts):
    order = BlockOrder(output, 4)
    pieces = [list(order.piece(*share(38, part, parts), seed=1, epoch=2)) for part in range(parts)]
    assert sum(pieces, []) == list(order.piece(0, 38, seed=1, epoch=2))
    assert sorted(sum(pieces, [])) == output.good.tolist() and len(order) == 38
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


def test_blocks_stay_together_and_in_one_file(output):
    line = list(BlockOrder(output, 4).piece(0, 38, seed=0, epoch=0))
    good = output.good.tolist()
    wanted = {tuple(g[i : i + 4]) for lo in (0, 15, 30) if (g := [r for r in good if lo <= r < lo + 15])
              for i in range(0, len(g), 4)}  # fmt: skip
    found = set()
    while line:
        block = next(block for block in wanted if tuple(line[: len(block)]) == block)
        found.add(block)
        del line[: len(block)]
    assert found == wanted


def test_seed_and_epoch_choose_the_order(output):
    order = BlockOrder(output, 2)
    lines = {tuple(order.piece(0, 38, seed=seed, epoch=epoch)) for seed in range(3) for epoch in range(3)}
    assert len(lines) == 9
    assert tuple(order.piece(0, 38, seed=1, epoch=1)) in lines


def test_every_block_comes_first_equally_often(output):
    order = BlockOrder(output, 19)  # 4 blocks: 14, 14 and 10 rows of the three files
    first = [next(order.piece(0, 38, seed=5, epoch=epoch)) for epoch in range(600)]
    counts = np.unique(first, return_counts=True)[1]
    assert len(counts) == 3 and abs(counts - 200).max() < 60  # five standard deviations


def test_a_block_has_a_row_at_least(output):
    with pytest.raises(FastgenError, match="got block 0; allowed: 1 or more"):
        BlockOrder(output, 0)
