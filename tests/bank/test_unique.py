"""Repeated ids are found in the order of the file and in memory that does not grow with it."""

import tracemalloc

import pytest

from fastgen.bank.unique import DuplicateFinder
from fastgen.errors import OutputError


def test_memory_of_the_finder_does_not_grow_with_the_bank():
    peaks = []
    for count in (20_000, 80_000):
        tracemalloc.start()
        with DuplicateFinder(block=4096) as finder:
            for i in range(count):
                finder.add(str(i), i, i)
            assert finder.duplicates(20) == ([], 0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 3e6


@pytest.mark.parametrize("block", [4, 1000])
def test_the_finder_gives_the_earliest_repeats_in_order(block):
    ids = ["a", "b", "a", "c", "b", "a", "d"]
    with DuplicateFinder(block=block) as finder:
        for line, id_ in enumerate(ids):
            finder.add(id_, line, 10 * line)
        found, total = finder.duplicates(2)
    assert total == 3
    assert [tuple(d) for d in found] == [(2, 20, 0, 0), (4, 40, 1, 10)]


def test_a_full_temporary_folder_says_what_to_do(tmp_path, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fastgen.bank.unique.tempfile.TemporaryDirectory", full)
    with (
        DuplicateFinder(block=1) as finder,
        pytest.raises(OutputError, match="set TMPDIR to a folder with more space"),
    ):
        finder.add("a", 1, 0)
