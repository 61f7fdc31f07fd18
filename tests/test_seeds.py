"""Seeds are fixed for good: a change here changes every data set, so the numbers are written down."""

import numpy as np
from scipy import stats

from fastgen.seeds import row_seed, stream

GOLDEN_SEED = 5937759125450808859
GOLDEN_LAMBDA = [0.8911810743479837, 0.5495694270422947, 0.6462651139428872]


def test_seeds_and_streams_are_what_they_always_were():
    """If this fails, old plans can no longer be made again: raise the bank format's version instead."""
    assert row_seed(0, "a") == GOLDEN_SEED
    np.testing.assert_array_equal(stream(1, "lambda").random(3), GOLDEN_LAMBDA)


def test_a_seed_depends_on_run_and_row_and_on_where_one_ends():
    seeds = {row_seed(run, row) for run in (0, 1, 11, -1) for row in ("1", "a", "1a", "", "\ud800")}
    assert len(seeds) == 20
    assert all(0 <= seed < 2**64 for seed in seeds)


def test_seeds_of_consecutive_rows_are_uniform():
    seeds = np.array([row_seed(0, f"{i:08d}") / 2**64 for i in range(4000)])
    assert stats.kstest(seeds, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(seeds[:-1], seeds[1:])[0, 1]) < 4 / 4000**0.5


def test_streams_of_one_seed_are_independent():
    first = np.array([stream(seed, "lambda").random() for seed in range(2000)])
    second = np.array([stream(seed, "prompt").random() for seed in range(2000)])
    assert stats.kstest(first, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / 2000**0.5


def test_any_64_bit_seed_works_for_diffusers():
    import torch

    noises = []
    for seed in (0, 2**64 - 1, row_seed(0, "x")):
        noise = torch.randn(4, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(noise, torch.randn(4, generator=torch.Generator().manual_seed(seed)))
        assert 0 <= stream(seed, "lambda").random() < 1
        noises.append(tuple(noise.tolist()))
    assert len(set(noises)) == 3
