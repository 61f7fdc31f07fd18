"""The seven relations of DALDA's paper that a miniature can show, each with its measured differences."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from scipy import stats

from repro.dalda.arms import LAMBDAS, STRENGTHS, WORLDS
from repro.dalda.results import Results
from repro.interval import Interval, bootstrap
from repro.relation import Difference, Relation

DISTANCE = "resnet_distance"
"""Stands for LPIPS: its formula over the embedded ResNet."""
ALPHA = 0.3
"""Score that parts AGS' two bins (paper, section 4.1)."""


def relations(results: Results) -> list[Relation]:
    """Measures all seven (card, section 4)."""
    makers: Sequence[tuple[str, Callable[[Results], list[Difference]]]] = (
        ("λ up, closer to the reference, monotonically over 0, 0.25, 0.5, 0.75, 1 (Fig. 2)", _lambda),
        ("AGS draws from a truncated normal; bins split at 0.3, mean linear in 1 - score (Eqs. 1 to 3)", _statistics),
        ("Against U(0, 1), AGS raises diversity for recognised references, lowers it for others (Fig. 5)", _bins),
        ("Sentences give images more diverse than one template does, at equal policy (Table 1)", _sentences),
        ("img2img: strength up, farther from the reference; baselines stay closer than λ = 0.25 (Table 1)", _strength),
        ("Template, AGS against U(0, 1): more alike among themselves, less like the reference (Table 1)", _template),
        ("Accuracy: small λ at least as good as img2img, both better than real images alone (Table 2)", _accuracy),
    )  # fmt: skip
    return [Relation(n, text, tuple(make(results))) for n, (text, make) in enumerate(makers, start=1)]


def _paired(results: Results, world: str, metric: str, *, more: str, less: str, expected: int = 1) -> Difference:
    """`more` minus `less` in a metric, paired by seed and class."""
    values = results.metric(world, more, metric) - results.metric(world, less, metric)
    return Difference(f"{world}: {metric}, {more} minus {less}", bootstrap(values), expected)


def _lambda(results: Results) -> list[Difference]:
    names = [f"lambda-{value:g}" for value in LAMBDAS]
    return [
        _paired(results, world, metric, more=more, less=less, expected=expected)
        for world in WORLDS
        for metric, expected in (("clip_i_ref", 1), (f"{DISTANCE}_ref", -1))
        for less, more in pairwise(names)
    ]


def _statistics(results: Results) -> list[Difference]:
    """The rows' own score, mu, sigma and lambda; what cannot vary is asserted instead of measured."""
    score, mu, sigma, lambda_ = np.concatenate([results.lambdas(world, "llm-ags") for world in WORLDS]).T
    low = score <= ALPHA
    bottom, top = np.where(low, 0.7, 0.1), np.where(low, 0.9, 0.4)
    if not (np.allclose(mu, bottom + (top - bottom) * (1 - score)) and np.allclose(sigma, 0.05)):
        raise AssertionError("mu or sigma of a row is not AGS' (Eqs. 1 and 2)")
    if not ((lambda_ >= bottom) & (lambda_ <= top)).all():
        raise AssertionError("a lambda lies outside its bin")
    a, b = (bottom - mu) / sigma, (top - mu) / sigma
    p = float(stats.kstest(stats.truncnorm.cdf((lambda_ - mu) / sigma, a, b), "uniform").pvalue)
    excess = Interval(p - 0.01, p - 0.01, p - 0.01)
    found = [Difference(f"p of Kolmogorov and Smirnov, {len(score)} rows, minus 0.01", excess, 1)]
    for name, chosen in (("high", ~low), ("low", low)):
        fit = stats.linregress(1 - score[chosen], lambda_[chosen])
        half = 1.96 * float(fit.stderr)
        slope = Interval(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half)
        found.append(Difference(f"slope of λ over 1 - score, {name} bin, {int(chosen.sum())} rows", slope, 1))
    return found


def _bins(results: Results) -> list[Difference]:
    found = []
    for recognised, expected in ((True, 1), (False, -1)):
        for pairs in ("ref", "intra"):
            metric, parts = f"{DISTANCE}_{pairs}", []
            for world in WORLDS:
                values = results.metric(world, "llm-ags", metric) - results.metric(world, "llm-rs", metric)
                parts.append(np.where((results.scores(world) > ALPHA) == recognised, values, np.nan))
            side = "above" if recognised else "at most"
            values = np.concatenate(parts, axis=1)
            found.append(Difference(f"{metric}, AGS minus RS, score {side} 0.3", bootstrap(values), expected))
    return found


def _sentences(results: Results) -> list[Difference]:
    return [
        _paired(results, world, metric, more=f"llm-{policy}", less=f"base-{policy}", expected=expected)
        for world in WORLDS
        for policy in ("rs", "ags")
        for metric, expected in ((f"{DISTANCE}_intra", 1), ("clip_i_intra", -1))
    ]


def _strength(results: Results) -> list[Difference]:
    names, metric = [f"strength-{value:g}" for value in STRENGTHS], f"{DISTANCE}_ref"
    rising = [
        _paired(results, world, metric, more=more, less=less) for world in WORLDS for less, more in pairwise(names)
    ]
    baselines = [name for name in ("real-guidance", "da-fusion") if results.has("HC", name)]
    closer = [_paired(results, world, metric, more="lambda-0.25", less=name) for world in WORLDS for name in baselines]
    return rising + closer


def _template(results: Results) -> list[Difference]:
    return [
        _paired(results, "HC", "clip_i_intra", more="base-ags", less="base-rs"),
        _paired(results, "HC", "clip_i_ref", more="base-ags", less="base-rs", expected=-1),
    ]


def _accuracy(results: Results) -> list[Difference]:
    small, img2img = results.accuracy("HC", "llm-ags"), results.accuracy("HC", "real-guidance")
    real = results.accuracy("HC", "llm-ags", "real")
    return [
        Difference("HC: LLM + AGS minus Real Guidance", bootstrap(small - img2img), 1),
        Difference("HC: Real Guidance minus real alone", bootstrap(img2img - real), 1),
        Difference("HC: LLM + AGS minus real alone", bootstrap(small - real), 1),
    ]
