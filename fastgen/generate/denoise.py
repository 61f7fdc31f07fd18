"""The denoising loop: start noise and conditions in, clean latents out."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fastgen.generate.schedulers import Schedule


class NoisePredictor(Protocol):
    """The engine's UNet; every input has a batch axis."""

    def __call__(
        self, *, sample: Tensor, timestep: Tensor, text_embeds: Tensor, image_embeds: Tensor, ip_scale: Tensor
    ) -> Tensor:
        """(B, C, h, w), (B,), (B, 77, D), (B, T, D), (B,) -> predicted noise (or v) (B, C, h, w)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What steers a batch; row i of every tensor belongs to image i.

    Args:
        text: prompts, (B, 77, D).
        image: image-prompt tokens, (B, T, D).
        ip_scale: lambda, (B,); it weights the image branch in both halves of the guidance.
        guidance: weight of classifier-free guidance, (B,); None: no unconditional half is computed.
        interval: shares of the schedule between which there is guidance (arXiv 2404.07724, section 3.1); outside of it
            only the conditional half is computed.
        negative_text: negative prompts, (B, 77, D); needed with `guidance`.
        no_image: tokens of "no image" for the unconditional half, (1, T, D); needed with `guidance`.
        late_text: prompts that take over at `switch`, (B, 77, D), or None.
        switch: share of the steps that use `text` before `late_text`, (B,), 0..1, or None.
    """

    text: Tensor
    image: Tensor
    ip_scale: Tensor
    guidance: Tensor | None = None
    interval: tuple[float, float] = (0.0, 1.0)
    negative_text: Tensor | None = None
    no_image: Tensor | None = None
    late_text: Tensor | None = None
    switch: Tensor | None = None

    def without_guidance_at(self, share: float) -> bool:
        """Whether no unconditional half is computed when `share` of the whole schedule is done."""
        return self.guidance is None or not self.interval[0] <= share < self.interval[1]

    def text_at(self, progress: float) -> Tensor:
        """The prompts that hold when the share `progress` of the steps is done, (B, 77, D)."""
        if self.late_text is None or self.switch is None:
            return self.text
        return torch.where((self.switch > progress)[:, None, None], self.text, self.late_text)


def start_noise(generators: list[torch.Generator], shape: tuple[int, int, int]) -> Tensor:
    """Unit noise, float32 (B, C, h, w) on the CPU, row i from generator i alone, as diffusers makes it."""
    return torch.cat([torch.randn((1, *shape), generator=generator) for generator in generators])


@torch.inference_mode()
def denoise(
    unet: NoisePredictor,
    latents: Tensor,
    schedule: "Schedule",
    *,
    conditions: Conditions,
    generators: list[torch.Generator],
) -> Tensor:
    """Denoise one batch; image i depends on row i of every argument and on nothing else.

    Args:
        unet: any backend.
        latents: (B, C, h, w) float32 at the noise level of the schedule's first step.
        schedule: a new one; it is used up.
        conditions: text, image tokens, lambda and guidance of every row.
        generators: one per row; only schedulers that draw noise at every step use them.

    Returns:
        Latents, (B, C, h, w) float32, scaled as the VAE's encoder output times its scaling factor.
    """
    prediction = None
    for number, (t, share) in enumerate(zip(schedule.timesteps, schedule.shares, strict=True)):
        text = conditions.text_at(number / len(schedule.timesteps))
        guidance = None if conditions.without_guidance_at(share) else conditions.guidance
        if prediction is None or prediction.text is not text or prediction.guidance is not guidance:
            prediction = Prediction(unet, text, replace(conditions, guidance=guidance))
        noise = prediction(schedule.scale_input(latents, t), t)
        latents = schedule.step(noise, t, latents, generators=generators)
    return latents


class Prediction:
    """The UNet under conditions that stay for many steps, with every row's own lambda and guidance weight.

    With guidance, one execution has the unconditional half of the batch before the conditional one.
    """

    def __init__(self, unet: NoisePredictor, text: Tensor, conditions: Conditions) -> None:
        """Lay out the inputs that stay.

        Args:
            unet: any backend.
            text: prompts that hold now, (B, 77, D).
            conditions: the others; without guidance there is one half.
        """
        self.text, self.guidance = text, conditions.guidance
        self._unet = unet
        image, scale = conditions.image, conditions.ip_scale
        self._inputs = {"text_embeds": text, "image_embeds": image, "ip_scale": scale}
        if self.guidance is not None:
            assert conditions.negative_text is not None and conditions.no_image is not None
            without = (conditions.negative_text, conditions.no_image.expand_as(image), scale)
            pairs = zip(self._inputs.items(), without, strict=True)
            self._inputs = {name: torch.cat([other, tensor]) for (name, tensor), other in pairs}

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Predict the noise (or v) of x (B, C, h, w) at the timestep t."""
        if self.guidance is None:
            return self._unet(sample=x, timestep=t.expand(len(x)), **self._inputs)
        both = self._unet(sample=torch.cat([x, x]), timestep=t.expand(2 * len(x)), **self._inputs)
        without, with_ = both.chunk(2)
        return without + self.guidance[:, None, None, None] * (with_ - without)
