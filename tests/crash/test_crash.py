"""A run that is killed at any moment, by any signal, alone or with other ranks, ends with the same images."""

import pytest

from tests.crash.harness import Harness, measure, small_bank
from tests.fake_engine import FakeEngine


def test_eight_kills(tmp_path):
    bank = small_bank(tmp_path, rows=8)
    harness = Harness(bank, FakeEngine(seconds_per_step=0.01), tmp_path, seed=3, shard_size=4, batch=2)
    while harness.kills.total() < 8:  # a round may be finished before all of its signals came
        harness.round(8 - harness.kills.total())
    assert len(harness.kills) > 1 and len(harness.images) == 16


@pytest.mark.slow
def test_two_hundred_kills(tmp_path):
    bank = small_bank(tmp_path, rows=12)
    result = measure(bank, FakeEngine(seconds_per_step=0.01), tmp_path, kills=200, seed=0)
    assert result["identical"] == "200 of 200" or result["kills"] > 200
    assert len(result["by_signal"]) == 8 and result["of_three_ranks_at_once"] > 50
