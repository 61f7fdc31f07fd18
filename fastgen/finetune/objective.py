"""The loss of a step, whatever is trained: pictures, captions and noise of the step -> UNet -> error."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastgen.finetune.batches import Batches
from fastgen.finetune.loss import add_noise, matching_loss, row_losses, snr_weights, target_of
from fastgen.finetune.parts import Parts
from fastgen.finetune.pictures import Latents


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What a fine-tuning minimises.

    Attributes:
        parts: the model, with what is trained in it.
        latents: its encoded pictures.
        batches: the draws of every step.
        captions: (step, indices of the step's pictures) -> their captions.
        min_snr: gamma of the min-SNR weights, or None for none.
        dist_match: weight of Real-Fake's matching term, or 0; needs `min_snr`.
    """

    parts: Parts
    latents: Latents
    batches: Batches
    captions: Callable[[int, np.ndarray], Sequence[str]]
    min_snr: float | None = None
    dist_match: float = 0.0

    def rows(self, step: int) -> int:
        """How many pictures a step has."""
        return len(self.batches.indices(step))

    def loss(self, step: int, rows: slice) -> Tensor:
        """The share of some rows in the mean loss of a step, a scalar; the shares of all rows add up to it.

        Args:
            step: its number.
            rows: which rows of the step's batch.
        """
        indices = self.batches.indices(step)
        posterior, noise = self.batches.noise(step, len(indices), self.latents.shape)
        device = self.latents.device
        t = self.batches.timesteps(step, len(indices), len(self.parts.alphas))[rows].to(device)
        alphas = self.parts.alphas.to(device)[t]
        clean, noise = self.latents.draw(self.batches, step, rows, posterior[rows]), noise[rows].to(device)
        ids = self.parts.token_ids(list(self.captions(step, indices))[rows])
        text = self.parts.text_encoder(ids.to(device), return_dict=False)[0]
        output = self.parts.unet(add_noise(clean, noise, alphas), t, text, return_dict=False)[0]
        return self._error(output, target_of(clean, noise, alphas, prediction=self.parts.prediction), alphas) * (
            len(t) / len(indices)
        )

    def _error(self, output: Tensor, target: Tensor, alphas: Tensor) -> Tensor:
        losses = row_losses(output, target)
        if self.min_snr is None:
            return losses.mean()
        weights = snr_weights(alphas, self.min_snr, prediction=self.parts.prediction)
        loss = (losses * weights).mean()
        return loss + self.dist_match * matching_loss(output, target, weights) if self.dist_match else loss


@torch.no_grad()
def mean_loss(objective: Objective, steps: Sequence[int]) -> float:
    """Mean loss over the batches of some steps, with their fixed noise and timesteps; trains nothing."""
    losses = [objective.loss(step, slice(None)).item() for step in steps]
    return sum(losses) / len(losses)
