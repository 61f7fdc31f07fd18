"""Adaptive guidance scaling (DALDA): the better CLIP knows an image, the less it acts as image prompt.

With s the score of the reference, n the shots per class and [min, max] the range of the score's bin:

    bin    = low if s <= alpha else high         range of low 0.7..0.9, of high 0.1..0.4         (Eq. 1)
    lambda ~ TruncNormal(mu, sigma^2; min, max)                                                  (Eq. 2)
    mu     = min + (max - min) (1 - s),  sigma = 0.05 n                                          (Eq. 3)

A well recognised image gets a small lambda (the text decides: diverse), a badly recognised one a large lambda
(stay close to the real image). The published code clips a normal instead (`sampler="clipnorm"`) and lets the
high bin reach up to 0.4 + 0.1 sqrt(n) (`high_max="grow_sqrt_n"`); both are options here, off by default.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgen.errors import FastgenError
from fastgen.row_parts import AGS_CHOICES, SCORE_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class AgsRule:
    """The constants of AGS; the defaults are the paper's.

    Attributes:
        alpha: scores up to here are in the low bin.
        low: range of lambda in the low bin.
        high: range of lambda in the high bin.
        sampler: "truncnorm" (paper; no value is hit twice) or "clipnorm" (code; point masses at the ends).
        high_max: upper bound of the high bin: "fixed" (paper) or "grow_sqrt_n" (code: 0.1 sqrt(n) above it;
            the mean still follows the fixed range).
        low_if: "le": score = alpha is low; "lt": it is high.
        per: "image" (code): lambda is drawn for every generated image; "reference" (paper's text): once for each
            reference, so that all its images share it.
        sigma_per_shot: standard deviation per shot.

    Raises:
        FastgenError: if an option has a value that is not allowed.
    """

    alpha: float = 0.3
    low: tuple[float, float] = (0.7, 0.9)
    high: tuple[float, float] = (0.1, 0.4)
    sampler: str = "truncnorm"
    high_max: str = "fixed"
    low_if: str = "le"
    per: str = "image"
    sigma_per_shot: float = 0.05

    def __post_init__(self) -> None:
        """Check the options."""
        for name, allowed in AGS_CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise FastgenError(f"AGS option {name}: got {value!r}; allowed: {', '.join(allowed)}")
        if not (math.isfinite(self.sigma_per_shot) and self.sigma_per_shot > 0):
            raise FastgenError(f"AGS option sigma_per_shot: got {self.sigma_per_shot}; it must be above 0")
        for name, (lo, hi) in (("low", self.low), ("high", self.high)):
            if not (math.isfinite(lo) and math.isfinite(hi) and lo < hi):
                raise FastgenError(f"AGS option {name}: got ({lo}, {hi}); the first must be below the second")

    def with_options(self, options: Mapping[str, Any]) -> "AgsRule":
        """The rule with those of `AGS_CHOICES` that the options have and that are not None."""
        given = {name: options[name] for name in AGS_CHOICES if options.get(name) is not None}
        return replace(self, **given) if given else self


@dataclass(frozen=True, slots=True, kw_only=True)
class AgsDistribution:
    """The distribution of lambda for one reference.

    Attributes:
        bin: "low" or "high".
        mu: mean of the normal before it is cut.
        sigma: standard deviation of the normal before it is cut.
        lo: smallest possible lambda.
        hi: largest possible lambda.
        sampler: how the normal is cut, "truncnorm" or "clipnorm".
    """

    bin: str
    mu: float
    sigma: float
    lo: float
    hi: float
    sampler: str

    def quantile(self, u: ArrayLike) -> NDArray[np.float64]:
        """Inverse of the distribution function.

        Args:
            u: probabilities in [0, 1], any shape.

        Returns:
            lambda, float64, same shape as `u`, in [lo, hi].
        """
        from scipy.special import ndtri

        p = np.asarray(u, np.float64)
        if self.sampler == "clipnorm":
            z = ndtri(p)
        else:
            z = truncated_normal_quantile(p, (self.lo - self.mu) / self.sigma, (self.hi - self.mu) / self.sigma)
        return np.clip(self.mu + self.sigma * z, self.lo, self.hi)

    def sample(self, rng: np.random.Generator) -> float:
        """Draws one lambda; takes exactly one uniform number from `rng`, whatever the sampler."""
        return float(self.quantile(rng.random()))


def truncated_normal_quantile(u: ArrayLike, a: float, b: float) -> NDArray[np.float64]:
    """Quantiles of a standard normal cut to [a, b], accurate in the far tails.

    The distribution function at the result is (1-u) Phi(a) + u Phi(b), a sum of positive terms, taken in
    logarithms; an interval right of 0 is mirrored, because Phi rounds to 1 there.

    Args:
        u: probabilities in [0, 1], any shape.
        a: lower bound, in standard deviations from the mean.
        b: upper bound, in standard deviations from the mean, above `a`.

    Returns:
        float64, same shape as `u`, in [a, b].
    """
    from scipy.special import log_ndtr, ndtri_exp

    p = np.asarray(u, np.float64)
    with np.errstate(divide="ignore"):  # log(0) at the two ends is meant: it is the bound itself
        if a > 0:
            z = -ndtri_exp(np.logaddexp(np.log1p(-p) + log_ndtr(-a), np.log(p) + log_ndtr(-b)))
        else:
            z = ndtri_exp(np.logaddexp(np.log1p(-p) + log_ndtr(a), np.log(p) + log_ndtr(b)))
    return np.clip(z, a, b)


def ags_parameters(score: float, n: int, rule: AgsRule | None = None) -> AgsDistribution:
    """The distribution of lambda for a reference (Eq. 1 to 3).

    Args:
        score: how well CLIP recognises the reference as its class; -1 to 2.5 (a probability, a cosine, or a CLIPScore).
        n: configured shots per class, >= 1, also for classes that have fewer images.
        rule: the constants; the paper's when not given.

    Returns:
        The distribution.

    Raises:
        FastgenError: if the score or the number of shots is out of range.
    """
    rule = rule or AgsRule()
    if not -1.0 - 1e-6 <= score <= SCORE_MAX + 1e-6:  # also for NaN; the margin is float32 rounding of a cosine
        raise FastgenError(f"AGS score: got {score}; allowed: -1 to {SCORE_MAX}")
    if n < 1:
        raise FastgenError(f"AGS shots: got {n}; allowed: 1 or more")
    is_low = score <= rule.alpha if rule.low_if == "le" else score < rule.alpha
    lo, hi = rule.low if is_low else rule.high
    mu = lo + (hi - lo) * (1.0 - score)
    if not is_low and rule.high_max == "grow_sqrt_n":
        hi += 0.1 * math.sqrt(n)
    return AgsDistribution(
        bin="low" if is_low else "high",
        mu=mu,
        sigma=rule.sigma_per_shot * n,
        lo=lo,
        hi=hi,
        sampler=rule.sampler,
    )


def sample_uniform(rng: np.random.Generator, lo: float = 0.0, hi: float = 1.0) -> float:
    """Random scaling: one lambda from U(lo, hi).

    Raises:
        FastgenError: if `lo` is above `hi`.
    """
    if not lo <= hi:
        raise FastgenError(f"uniform lambda: got lo {lo} above hi {hi}; lo must not be above hi")
    return lo + (hi - lo) * float(rng.random())
