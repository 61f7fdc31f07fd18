"""Damaged input of every kind ends with a message and exit code 1 or 2, never with a traceback."""

import pytest

from tests.fuzz.fuzz import fuzz
from tests.fuzz.targets import TARGETS

FEW = {"bank": 40, "reference": 15, "shard": 8, "engine": 25, "weights": 20}
MANY = 210


@pytest.mark.parametrize("name", TARGETS)
def test_a_few(name, tmp_path):
    codes = fuzz(name, tmp_path, cases=FEW[name])
    assert codes.total() == FEW[name] and codes[1] + codes[2] > FEW[name] // 3


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_many(name, tmp_path):
    codes = fuzz(name, tmp_path, cases=MANY)
    assert codes.total() == MANY and codes[1] + codes[2] > MANY // 3
