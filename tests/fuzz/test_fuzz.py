"""Damaged input of every kind ends with a message and exit code 1 or 2, never with a traceback."""

import pytest

from tests.fuzz.fuzz import fuzz
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_a_few(name, tmp_path):
    codes = fuzz(name, tmp_path, cases=20)
    assert codes.total() == 20 and codes[1] + codes[2] > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_many(name, tmp_path):
    codes = fuzz(name, tmp_path, cases=250)
    assert codes.total() == 250 and codes[1] + codes[2] > 60
