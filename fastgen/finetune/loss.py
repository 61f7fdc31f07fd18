"""The training loss of a diffusion model: its target, min-SNR weights, and Real-Fake's matching of batch means."""

import torch
from torch import Tensor

PREDICTIONS = ("epsilon", "v_prediction")


def add_noise(clean: Tensor, noise: Tensor, alphas: Tensor) -> Tensor:
    """Noise latents: sqrt(a) x + sqrt(1 - a) e.

    Args:
        clean, noise: (B, C, h, w).
        alphas: cumulative alphas of the rows' timesteps, (B,).
    """
    a = alphas[:, None, None, None]
    return a.sqrt() * clean + (1 - a).sqrt() * noise


def target_of(clean: Tensor, noise: Tensor, alphas: Tensor, *, prediction: str) -> Tensor:
    """What the UNet should say, (B, C, h, w): the noise, or v = sqrt(a) e - sqrt(1 - a) x.

    Args:
        clean, noise: (B, C, h, w).
        alphas: as in `add_noise`.
        prediction: one of `PREDICTIONS`.
    """
    if prediction == "epsilon":
        return noise
    a = alphas[:, None, None, None]
    return a.sqrt() * noise - (1 - a).sqrt() * clean


def snr_weights(alphas: Tensor, gamma: float, *, prediction: str) -> Tensor:
    """Min-SNR weights (arXiv 2303.09556, section 3.4), float32 (B,).

    min(snr, gamma) / snr for noise, min(snr, gamma) / (snr + 1) for v.

    Args:
        alphas: as in `add_noise`.
        gamma: above 0; 5 in the paper.
        prediction: one of `PREDICTIONS`.
    """
    snr = alphas / (1 - alphas)
    if prediction == "epsilon":
        return (gamma / snr).clamp(max=1)  # also right at snr 0, the end of a zero-terminal-SNR schedule
    return snr.clamp(max=gamma) / (snr + 1)


def row_losses(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of every row, float32 (B,)."""
    return (output.float() - target.float()).square().flatten(1).mean(1)


def matching_loss(output: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Real-Fake's distribution-matching term: how far the weighted sums over the batch are apart, a scalar.

    Args:
        output, target: (B, C, h, w).
        weights: min-SNR weights, (B,).
    """
    return torch.einsum("b,bchw->chw", weights, output.float() - target.float()).square().mean()
