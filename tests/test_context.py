"""The independence checks against scipy, exact values and simulation."""

import math

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from fastgen.context import LEVEL, context_of_rows, independence


def observed(table):
    """Two columns of values that give a table of counts."""
    pairs = [(i, f"c{j}") for i, row in enumerate(table) for j, count in enumerate(row) for _ in range(count)]
    return [a for a, _ in pairs], [b for _, b in pairs]


@pytest.mark.parametrize("seed", range(5))
def test_chi_square_and_information_equal_scipy(seed):
    table = np.random.default_rng(seed).integers(1, 9, (4, 6))
    found = independence(*observed(table))
    oracle = chi2_contingency(table, correction=False)
    assert found.chi2 == pytest.approx(oracle.statistic, rel=1e-12)
    assert (found.dof, found.n) == (oracle.dof, table.sum())
    assert found.p_chi2 == pytest.approx(oracle.pvalue, rel=1e-9)
    g = chi2_contingency(table, correction=False, lambda_="log-likelihood").statistic
    assert found.mutual_information == pytest.approx(g / (2 * table.sum()), rel=1e-9)
    assert found.sparse == pytest.approx((oracle.expected_freq < 5).mean())
    assert found.p == pytest.approx(found.p_chi2, abs=0.06), "the shuffles agree where the distribution holds"


def test_information_of_known_tables():
    same = independence(*observed([[30, 0], [0, 30]]))
    assert same.mutual_information == pytest.approx(math.log(2)) == pytest.approx(same.entropy)
    assert same.dependent
    none = independence(*observed([[5, 5], [5, 5]]))
    assert (none.mutual_information, none.chi2) == (0.0, 0.0) and not none.dependent


def test_one_value_depends_on_nothing():
    found = independence(["a"] * 4, [1, 2, 3, 4])
    assert (found.dof, found.p, found.p_chi2, found.mutual_information) == (0, 1.0, 1.0, 0.0)


def test_wrong_lengths_are_refused():
    for first, second in (([], []), ([1], [1, 2])):
        with pytest.raises(ValueError, match="equally many, at least one"):
            independence(first, second)


def test_the_bias_is_what_independent_draws_give():
    rng = np.random.default_rng(0)
    found = [independence(rng.integers(8, size=400).tolist(), rng.integers(10, size=400).tolist()) for _ in range(20)]
    mean = np.mean([one.mutual_information for one in found])
    assert mean == pytest.approx(found[0].bias, rel=0.15) and mean > 0.05, "without the bias this looks like dependence"
    assert sum(one.dependent for one in found) == 0


def test_sparse_tables_are_judged_by_shuffling():
    """37 classes times 50 contexts with 370 rows: 1850 cells, and the chi-square distribution is far off."""
    rng = np.random.default_rng(1)
    classes = [i % 37 for i in range(370)]
    p = [independence(classes, rng.integers(50, size=370).tolist(), seed=i).p for i in range(10)]
    assert min(p) > LEVEL and max(p) > 0.3
    assert independence(classes, [c % 5 for c in classes]).p == pytest.approx(1 / 2000)


def test_rows_without_donor_are_passed_over():
    rows = [{"class": "a", "prompt": "x"}, {"class": "b", "attrs": {"background": "snow"}}]
    assert context_of_rows(rows) == {}
    rows += [{"class": c, "attrs": {"background": c, "pose": "sitting", "donor_id": c}} for c in "abab" * 10]
    found = context_of_rows(rows)
    assert list(found) == ["context"] and found["context"].n == 40 and found["context"].dependent
    assert "DEPEND" in str(found["context"]) and found["context"].to_json()["dependent"] is True
