"""Seeds that depend on the row and on nothing else.

Every row has one seed. From it follow independent streams, one for each thing that is drawn by chance, so
that a new kind of draw never changes the old ones, and no draw depends on the order, rank or batch of a run.
"""

import hashlib

import numpy as np


def _digest(size: int, *parts: object) -> bytes:
    """A hash of the parts; the parts' lengths go in, so that no two different lists read the same."""
    digest = hashlib.blake2b(digest_size=size)
    for part in parts:
        data = str(part).encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()


def row_seed(run_seed: int, row_id: str) -> int:
    """The seed of a row that has none of its own.

    Args:
        run_seed: the run's seed, any integer.
        row_id: the row's id, unique in the run.

    Returns:
        An integer, 0 to 2**64 - 1.
    """
    return int.from_bytes(_digest(8, "row", run_seed, row_id), "little")


def stream(seed: int, name: str) -> np.random.Generator:
    """A random generator for one purpose of one row, independent of all other names and seeds.

    Args:
        seed: the row's seed.
        name: what the numbers are for: "lambda", "prompt", "strength", ... The start noise of an image is not
            a stream: it comes from `torch.Generator().manual_seed(seed)`, as in diffusers.

    Returns:
        A new generator at its first number (Philox, a counter-based one: cheap to start).
    """
    return np.random.Generator(np.random.Philox(key=int.from_bytes(_digest(16, "stream", seed, name), "little")))
