"""The order in which an epoch goes through an output folder: random, and yet mostly forward in the files."""

from collections.abc import Iterator

import numpy as np

from fastgen.errors import FastgenError
from fastgen.shards.read import Output


def share(total: int, part: int, parts: int) -> tuple[int, int]:
    """First and last + 1 of the rows that belong to one of several; shares differ by one row at most."""
    return total * part // parts, total * (part + 1) // parts


class BlockOrder:
    """The good rows of an output in blocks that lie together in a file, and permutations of the blocks.

    A permutation is one line of all rows. Whoever takes part in an epoch reads a piece of that line: the pieces of all
    parts make up the epoch, and no row is in two.
    """

    def __init__(self, output: Output, block: int) -> None:
        """Sort the good rows by file and place, and cut them.

        Args:
            output: the opened folder.
            block: rows of a block, >= 1; the last one of a file may have fewer.
        """
        if block < 1:
            raise FastgenError(f"got block {block}; allowed: 1 or more rows that are read together")
        good = output.good
        self._rows = good[np.lexsort((output.places[good], output.of_file[good]))]
        files = output.of_file[self._rows]
        first = np.flatnonzero(np.diff(files, prepend=-1))  # of every file
        in_file = np.arange(len(files)) - np.repeat(first, np.diff(first, append=len(files)))
        self._starts = np.flatnonzero(in_file % block == 0)
        self._lengths = np.diff(self._starts, append=len(files))

    def __len__(self) -> int:
        """Return the number of good rows."""
        return len(self._rows)

    def piece(self, first: int, last: int, *, seed: int, epoch: int) -> Iterator[int]:
        """Yield row numbers `first` to before `last` of the epoch's line: whole blocks, but for the ends.

        Args:
            first, last: places in the line, 0 <= first <= last <= len(self).
            seed, epoch: choose the permutation, >= 0.
        """
        order = np.random.default_rng([seed, epoch]).permutation(len(self._starts))
        ends = np.cumsum(self._lengths[order])
        for number in range(int(np.searchsorted(ends, first, side="right")), len(order)):
            block = order[number]
            begin = int(ends[number] - self._lengths[block])
            if begin >= last:
                break
            low, high = max(first - begin, 0), min(last - begin, int(self._lengths[block]))
            yield from self._rows[self._starts[block] + low : self._starts[block] + high].tolist()
