"""A linear classifier on frozen features: multinomial logistic regression with a ridge, solved to the end."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

FOLDS = 5
RIDGE = 0.01
"""Weight of the squared norm of the (standardised) weights beside the mean cross entropy."""
STEPS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearProbe:
    """A fitted classifier.

    Attributes:
        values: what it tells apart; the position is the column of `weight`.
        mean, scale: of the features it was fitted to, (D,).
        weight: float64 (D, K); `bias`: (K,).
    """

    values: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    bias: np.ndarray

    def predict(self, features: np.ndarray) -> list[str]:
        """The likeliest value of each row of (N, D)."""
        scores = (features - self.mean) / self.scale @ self.weight + self.bias
        return [self.values[k] for k in scores.argmax(1)]


def fit_probe(features: np.ndarray, labels: list[str], *, ridge: float = RIDGE) -> LinearProbe:
    """Minimise mean cross entropy + ridge / 2 |W|^2 by L-BFGS, in float64; the problem is convex.

    Args:
        features: (N, D).
        labels: N values, at least two different ones.
        ridge: > 0.
    """
    values = tuple(sorted(set(labels)))
    mean, scale = features.mean(0), features.std(0)
    scale = np.where(scale > 1e-8, scale, 1.0)
    x = torch.from_numpy(((features - mean) / scale).astype(np.float64))
    y = torch.tensor([values.index(label) for label in labels])
    weight = torch.zeros(x.shape[1], len(values), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(values), dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=STEPS, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weight + bias, y) + ridge / 2 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)  # type: ignore[arg-type]
    return LinearProbe(
        values=values, mean=mean, scale=scale, weight=weight.detach().numpy(), bias=bias.detach().numpy()
    )


def held_out_accuracy(features: np.ndarray, labels: list[str], *, seed: int = 0) -> float:
    """Share of right predictions by probes that have not seen the image: `FOLDS` folds in an order drawn by the seed.

    Args:
        features: (N, D), N >= 2.
        labels: N values.
        seed: of the folds.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    right = 0
    for fold in range(FOLDS):
        test = order[fold::FOLDS]
        train = np.setdiff1d(order, test)
        known = [labels[i] for i in train]
        if not len(test):
            continue
        if len(set(known)) < 2:
            right += sum(labels[i] == known[0] for i in test)
            continue
        predicted = fit_probe(features[train], known).predict(features[test])
        right += sum(labels[i] == guess for i, guess in zip(test, predicted, strict=True))
    return right / len(labels)
