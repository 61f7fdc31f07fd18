"""Intervals and verdicts of the reproductions."""

import numpy as np
import pytest
from scipy import stats

from repro.interval import Interval, bootstrap
from repro.relation import Difference, Relation, relation_lines


def test_the_interval_of_one_class_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(0).normal(2.0, 1.0, (30, 1))
    mine = bootstrap(values)
    found = stats.bootstrap((values[:, 0],), np.mean, n_resamples=4000, method="percentile", random_state=1)
    assert mine.mean == pytest.approx(values.mean())
    assert (mine.low, mine.high) == pytest.approx(tuple(found.confidence_interval), abs=0.03)


def test_classes_of_a_seed_do_not_count_as_independent():
    seeds = np.random.default_rng(0).normal(0, 1, (5, 1))
    shared = np.repeat(seeds, 40, axis=1)
    alone, many = bootstrap(seeds), bootstrap(shared)
    assert many.high - many.low == pytest.approx(alone.high - alone.low, rel=0.1)


@pytest.mark.parametrize(
    ("low", "high", "expected", "verdict"),
    [(0.1, 0.3, 1, "holds"), (-0.3, -0.1, 1, "fails"), (-0.1, 0.3, 1, "open"), (-0.3, -0.1, -1, "holds")],
)
def test_a_verdict_follows_from_the_side_of_zero(low, high, expected, verdict):
    good = Difference("good", Interval(1.0, 0.5, 1.5), 1)
    tested = Difference("tested", Interval((low + high) / 2, low, high), expected)
    relation = Relation(1, "statement", (good, tested))
    assert relation.verdict == verdict
    assert relation.to_json()["verdict"] == verdict and "statement" in relation_lines([relation])[0]
