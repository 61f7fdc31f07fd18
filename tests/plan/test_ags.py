"""AGS against the equations, the card's test vectors, and scipy."""

import numpy as np
import pytest
from scipy import stats

from fastgen.errors import FastgenError
from fastgen.plan.ags import AgsRule, ags_parameters, sample_uniform, truncated_normal_quantile
from fastgen.seeds import stream

OFFICIAL = AgsRule(sampler="clipnorm", high_max="grow_sqrt_n")
GRID = (np.arange(200_001) + 0.5) / 200_001  # midpoints: their quantiles have the distribution's own moments

VECTORS = [  # n, s, mu, truncnorm mean, sd, official mean, P(=min), P(=U), U
    (1, 1.00, 0.100, 0.140, 0.030, 0.120, 0.500, 0.000, 0.5),
    (1, 0.90, 0.130, 0.153, 0.036, 0.138, 0.274, 0.000, 0.5),
    (1, 0.60, 0.220, 0.221, 0.049, 0.220, 0.008, 0.000, 0.5),
    (1, 0.31, 0.307, 0.303, 0.046, 0.307, 0.000, 0.000, 0.5),
    (1, 0.30, 0.840, 0.829, None, 0.837, 0.003, 0.115, 0.9),
    (1, 0.00, 0.900, 0.860, None, 0.880, 0.000, 0.500, 0.9),
    (4, 0.90, 0.130, 0.229, 0.082, 0.195, 0.440, 0.009, 0.6),
    (16, 1.00, 0.100, 0.248, 0.086, 0.335, 0.500, 0.191, 0.8),
    (16, 0.31, 0.307, 0.251, 0.086, 0.402, 0.398, 0.269, 0.8),
    (16, 0.00, 0.900, 0.801, None, 0.810, 0.401, 0.500, 0.9),
]
IDS = [f"n{v[0]}-s{v[1]}" for v in VECTORS]
ROUNDING = 0.00051


@pytest.mark.parametrize("vector", VECTORS, ids=IDS)
def test_the_cards_vectors_of_the_papers_form(vector):
    n, score, mu, mean, sd, *_ = vector
    found = ags_parameters(score, n)
    assert found.bin == ("low" if score <= 0.3 else "high")
    assert found.mu == pytest.approx(mu, abs=ROUNDING)
    assert found.sigma == pytest.approx(0.05 * n)
    values = found.quantile(GRID)
    assert values.mean() == pytest.approx(mean, abs=ROUNDING)
    if sd is not None:
        assert values.std() == pytest.approx(sd, abs=ROUNDING)
    assert values.min() >= found.lo and values.max() <= found.hi
    assert (values == found.lo).mean() < 1e-4 and (values == found.hi).mean() < 1e-4, "no point masses"


@pytest.mark.parametrize("vector", VECTORS, ids=IDS)
def test_the_cards_vectors_of_the_official_form(vector):
    n, score, mu, _, _, mean, at_min, at_max, top = vector
    found = ags_parameters(score, n, OFFICIAL)
    assert found.mu == pytest.approx(mu, abs=ROUNDING), "the mean follows the fixed range, not the grown one"
    assert found.hi == pytest.approx(top)
    values = found.quantile(GRID)
    assert values.mean() == pytest.approx(mean, abs=ROUNDING)
    assert (values == found.lo).mean() == pytest.approx(at_min, abs=ROUNDING)
    assert (values == found.hi).mean() == pytest.approx(at_max, abs=ROUNDING)


@pytest.mark.parametrize("vector", VECTORS, ids=IDS)
def test_samples_follow_scipys_truncnorm_with_standardised_bounds(vector):
    n, score, *_ = vector
    found = ags_parameters(score, n)
    low, high = (found.lo - found.mu) / found.sigma, (found.hi - found.mu) / found.sigma
    rng = np.random.default_rng([7, n, round(100 * score)])
    drawn = [found.sample(rng) for _ in range(2000)]
    expected = stats.truncnorm(low, high, loc=found.mu, scale=found.sigma)
    assert stats.kstest(drawn, expected.cdf).pvalue > 1e-3
    raw = stats.truncnorm(found.lo, found.hi, loc=found.mu, scale=found.sigma)  # card, mistake 3
    assert stats.kstest(drawn, raw.cdf).pvalue < 1e-6


def test_clipped_samples_follow_the_clipped_normal():
    found = ags_parameters(0.9, 4, OFFICIAL)
    rng = np.random.default_rng(3)
    drawn = np.array([found.sample(rng) for _ in range(4000)])
    expected = np.clip(stats.norm(found.mu, found.sigma).ppf(GRID), found.lo, found.hi)
    assert drawn.mean() == pytest.approx(expected.mean(), abs=4 * expected.std() / 4000**0.5)
    assert (drawn == 0.1).mean() == pytest.approx(0.440, abs=4 * (0.44 * 0.56 / 4000) ** 0.5)


@pytest.mark.parametrize(
    "bounds",
    [(-1, 2), (0, 1), (5, 6), (-6, -5), (30, 31), (-31, -30), (-40, 3), (8, 40), (0, 1e-3), (200, 201)],
)
def test_quantiles_equal_scipys_also_in_the_far_tails(bounds):
    u = np.array([0.0, 1e-12, 1e-3, 0.1, 0.5, 0.9, 0.999, 1 - 1e-12, 1.0])
    found = truncated_normal_quantile(u, *bounds)
    np.testing.assert_allclose(found, stats.truncnorm(*bounds).ppf(u), rtol=1e-9, atol=1e-9)
    assert np.all(np.diff(found) >= 0)
    assert found[0] == pytest.approx(bounds[0], abs=1e-9) and found[-1] == pytest.approx(bounds[1], abs=1e-9)
    assert bounds[0] <= found.min() and found.max() <= bounds[1]


def test_a_cosine_beyond_the_usual_scores_still_gives_a_lambda_in_range():
    """mu leaves the range for negative scores, far out for few shots; the sampler must not."""
    for score in (-1.0, -0.2, 1.0000001):
        found = ags_parameters(score, 1, AgsRule(sigma_per_shot=0.005))
        values = found.quantile(GRID[::100])
        assert np.isfinite(values).all() and values.min() >= found.lo and values.max() <= found.hi


def test_with_cosines_the_rule_degenerates():
    """Card, mistake 1: cosines of CLIP lie near 0.2 to 0.35; mu is then one of two near-constants."""
    mu = {f.bin: [] for f in (ags_parameters(s, 1) for s in (0.2, 0.33))}
    for score in np.linspace(0.2, 0.35, 16):
        found = ags_parameters(float(score), 1)
        mu[found.bin].append(found.mu)
    assert 0.295 <= min(mu["high"]) and max(mu["high"]) <= 0.31
    assert 0.84 <= min(mu["low"]) and max(mu["low"]) <= 0.86


def test_a_drawn_lambda_takes_one_number_and_grows_with_it():
    for rule in (AgsRule(), OFFICIAL):
        rng = stream(5, "lambda")
        ags_parameters(0.5, 1, rule).sample(rng)
        assert rng.random() == stream(5, "lambda").random(2)[1]
        assert np.all(np.diff(ags_parameters(0.5, 1, rule).quantile(GRID)) >= 0)


def test_the_threshold_itself_is_low_unless_asked_otherwise():
    assert ags_parameters(0.3, 1).bin == "low"
    assert ags_parameters(0.3, 1, AgsRule(low_if="lt")).bin == "high"
    assert ags_parameters(0.5, 1, AgsRule(alpha=0.5)).bin == "low"


def test_sigma_uses_the_configured_shots():
    assert ags_parameters(0.8, 16).sigma == pytest.approx(0.8)  # card, mistake 15


def test_the_official_form_may_exceed_the_papers_bound():
    assert ags_parameters(0.31, 16, OFFICIAL).quantile(GRID).max() == pytest.approx(0.8)  # card, mistake 14


@pytest.mark.parametrize("score", [float("nan"), 2.6, -1.5, float("inf")])
def test_a_score_out_of_range_is_refused(score):
    with pytest.raises(FastgenError, match="AGS score: got .*; allowed: -1 to 2.5"):
        ags_parameters(score, 1)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sampler": "normal"}, "sampler: got 'normal'; allowed: truncnorm, clipnorm"),
        ({"high_max": "grow"}, "high_max: got 'grow'; allowed: fixed, grow_sqrt_n"),
        ({"low_if": "<="}, "low_if: got '<='; allowed: le, lt"),
        ({"sigma_per_shot": 0.0}, "sigma_per_shot: got 0.0; it must be above 0"),
        ({"high": (0.4, 0.1)}, "high: got (0.4, 0.1); the first must be below the second"),
    ],
)
def test_options_say_what_is_allowed(options, message):
    with pytest.raises(FastgenError) as error:
        AgsRule(**options)
    assert message in str(error.value)


def test_shots_and_uniform_bounds_are_checked():
    with pytest.raises(FastgenError, match="AGS shots: got 0; allowed: 1 or more"):
        ags_parameters(0.5, 0)
    with pytest.raises(FastgenError, match="got lo 0.9 above hi 0.1"):
        sample_uniform(np.random.default_rng(0), 0.9, 0.1)


def test_uniform_lambdas_are_uniform():
    rng = np.random.default_rng(1)
    drawn = [sample_uniform(rng, 0.2, 0.6) for _ in range(2000)]
    assert stats.kstest(drawn, stats.uniform(0.2, 0.4).cdf).pvalue > 1e-3
