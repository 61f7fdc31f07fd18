"""Shards that wait for the check: only rows that are in the plan, byte for byte, get a final name."""

import os

import pytest

from fastgen.errors import OutputError
from fastgen.shards.layout import scan
from fastgen.shards.unchecked import discard, promote, refuse_foreign, unchecked_files
from fastgen.shards.verify import identity_of, verify
from tests.shards.shard_samples import make_output, make_signature


@pytest.fixture
def layout(tmp_path):
    """Three shards of 4, 4 and 2 rows, all waiting."""
    layout = make_output(tmp_path / "out", rows=10, shard_size=4)
    for _, _, path in layout.shard_files():
        os.rename(path, f"{path}.unchecked")
    return layout


def test_what_the_plan_has_is_renamed(layout):
    assert layout.shard_files() == [] and [shard for shard, _ in unchecked_files(layout, 0)] == [0, 1, 2]
    promote(layout, 0)
    assert unchecked_files(layout, 0) == [] and verify(layout.out) == []
    promote(layout, 0)
    assert verify(layout.out) == []


@pytest.mark.parametrize(("line", "kept"), [(0, [1, 2]), (5, [0, 2]), (9, [0, 1])])
def test_a_row_that_the_plan_does_not_have_is_not_published(layout, line, kept):
    lines = layout.plan.read_text(encoding="utf-8").splitlines()
    lines[line] = lines[line].replace('"lambda": 0.25', '"lambda": 0.26')
    layout.plan.write_text("\n".join(lines) + "\n", encoding="utf-8")
    promote(layout, 0)
    assert [shard for _, shard, _ in layout.shard_files(unchecked=True)] == kept


def test_a_plan_that_ends_before_is_not_what_the_shard_was_made_from(layout):
    lines = layout.plan.read_text(encoding="utf-8").splitlines()
    layout.plan.write_text("\n".join(lines[:9]) + "\n", encoding="utf-8")
    promote(layout, 0)
    assert [shard for _, shard, _ in layout.shard_files(unchecked=True)] == [0, 1]


def test_they_count_only_where_they_are_asked_for(layout):
    identity = identity_of(make_signature())
    assert scan(layout, identity, rank=0, rows=10).rows == 0
    progress = scan(layout, identity, rank=0, rows=10**9, unchecked=True)
    assert progress.rows == 10 and progress.complete == {0, 1} and progress.begun[2] == {8, 9}


def test_other_ranks_are_left_alone(layout):
    promote(layout, 1)
    assert discard(layout, 1) == 0 and len(unchecked_files(layout, 0)) == 3
    assert discard(layout, 0) == 3 and os.listdir(layout.shards) == []


def test_those_of_another_run_are_refused(layout):
    refuse_foreign(layout, identity_of(make_signature()), 0)
    with pytest.raises(OutputError, match="00000-r000.h5.unchecked: was made with another bank, engine or options"):
        refuse_foreign(layout, identity_of(make_signature(seed=1)), 0)


def test_verify_names_them(layout):
    promote(layout, 0)
    path = layout.shard(0, 1)
    os.rename(path, f"{path}.unchecked")
    assert any(line.startswith("00001-r000.h5.unchecked: waits for the check") for line in verify(layout.out))
