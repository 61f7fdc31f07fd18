"""Distils the model into few steps: `python -m repro.mini.few_step --work out/mini --model fastgen/models/mini`.

LCM-LoRA (arXiv 2311.05556, algorithm 1 of 2310.04378): a LoRA learns to say at every noise level where the teacher's
guided path ends. Two points of that path, one step of DDIM apart, must get the same answer. The result, in
`<work>/few-step-lora`, is for `fastgen build --lora few-step=FOLDER` and rows with `"scheduler": "lcm"`, 2 to 8 steps
and `"guidance_scale": 1`: guidance is in the weights, no unconditional half is computed. bench/quality.py measures it.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from fastgen.finetune.loss import add_noise
from fastgen.finetune.parts import Parts, add_lora, load_trainable, write_lora
from repro.mini.captions import load_captions
from repro.mini.data import TRAIN_SEED, load_images
from repro.mini.training import arguments, device, step_rng, to_tensor, train
from repro.mini.unet import CAPTIONS, training_caption

STAGE = "few-step"
GUIDANCE = 3.0
"""Of the teacher: the model's own default."""

GRID = 20
"""Timesteps between the noise levels that diffusers' LCMScheduler can stop at: 19, 39 ... 999."""

SKIP = 2 * GRID
"""Timesteps that one step of the teacher goes: its 25 steps are what the student is to equal."""

TARGETS = (
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "time_emb_proj"),
    *("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"),
)
"""The layers that diffusers' LCM-LoRA training adapts."""

SIGMA_DATA, TIMESTEP_SCALING, HUBER = 0.5, 10.0, 0.001
"""Of LCMScheduler, and of the loss in LCM's training."""


def boundary_scalings(t: Tensor) -> tuple[Tensor, Tensor]:
    """LCMScheduler's c_skip and c_out, (B, 1, 1, 1): at timestep 0 the answer is the input itself."""
    scaled = TIMESTEP_SCALING * t[:, None, None, None].float()
    length = scaled.square() + SIGMA_DATA**2
    return SIGMA_DATA**2 / length, scaled / length.sqrt()


def split(noisy: Tensor, velocity: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """The clean latents and the noise that a prediction of v says noisy latents are made of.

    Args:
        noisy, velocity: (B, C, h, w).
        alphas: cumulative alphas of the rows' timesteps, (B,).
    """
    a = alphas[:, None, None, None]
    clean = a.sqrt() * noisy - (1 - a).sqrt() * velocity
    return clean, a.sqrt() * velocity + (1 - a).sqrt() * noisy


@torch.no_grad()
def load_latents(args: argparse.Namespace, vae: AutoencoderKL) -> Tensor:
    """Scaled latents of the first training pictures, float16 (N, C, h, w); encoded on the first call and kept."""
    path = args.work / f"few-step-latents-{args.pictures}.pt"
    if not path.exists():
        images = load_images(args.work, TRAIN_SEED, args.pictures)
        pieces = [images[i : i + 100] for i in range(0, len(images), 100)]
        found = [vae.encode(to_tensor(piece)).latent_dist.mode().half().cpu() for piece in pieces]
        torch.save(torch.cat(found).mul_(vae.config.scaling_factor), path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    return torch.load(path, weights_only=True).to(device())


class ConsistencyLoss:
    """The loss of one step; teacher and student are one UNet, with its LoRA switched off and on."""

    def __init__(self, parts: Parts, args: argparse.Namespace) -> None:
        self.parts, self.batch = parts, args.batch
        self.alphas, self.latents = parts.alphas.to(device()), load_latents(args, parts.vae)
        self.captions = load_captions(args.work, "unet", training_caption, each=CAPTIONS, count=args.pictures)
        self.nothing = self._encode(parts.token_ids([""]))

    def __call__(self, step: int) -> Tensor:
        """Scalar loss of the step's batch: LCM's pseudo-Huber distance of two answers."""
        rng = step_rng(STAGE, step)
        at, number = rng.integers(0, len(self.latents), self.batch), rng.integers(0, CAPTIONS, self.batch)
        clean, text = self.latents[torch.from_numpy(at)].float(), self._encode(self.captions[at, number])
        t = torch.from_numpy(draw_timesteps(self.batch, rng)).to(device())
        noisy = add_noise(clean, torch.randn_like(clean), self.alphas[t])
        with torch.no_grad():
            earlier = (t - SKIP).clamp(min=0)
            target = self._answer(self._teacher_step(noisy, t, earlier, text), earlier, text)
        error = self._answer(noisy, t, text) - target
        return ((error.square() + HUBER**2).sqrt() - HUBER).mean()

    @torch.no_grad()
    def _encode(self, tokens: Tensor) -> Tensor:
        """Token ids (B, 77) -> (B, 77, D)."""
        return self.parts.text_encoder(tokens.to(device()).long(), return_dict=False)[0]

    def _teacher_step(self, noisy: Tensor, t: Tensor, earlier: Tensor, text: Tensor) -> Tensor:
        """Latents at `earlier` by one step of DDIM with guidance."""
        unet = self.parts.unet
        unet.disable_adapters()
        both = torch.cat([self.nothing.expand_as(text), text])
        without, with_ = unet(torch.cat([noisy, noisy]), torch.cat([t, t]), both, return_dict=False)[0].chunk(2)
        unet.enable_adapters()
        clean, noise = split(noisy, without + GUIDANCE * (with_ - without), self.alphas[t])
        return add_noise(clean, noise, self.alphas[earlier])

    def _answer(self, noisy: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """Where the student says that the path through `noisy` ends."""
        skip, out = boundary_scalings(t)
        velocity = self.parts.unet(noisy, t, text, return_dict=False)[0]
        return skip * noisy + out * split(noisy, velocity, self.alphas[t])[0]


def draw_timesteps(batch: int, rng: np.random.Generator) -> np.ndarray:
    """Timesteps that LCMScheduler can stop at, int64 (B,), one in each of B equal parts of the schedule."""
    levels = 1000 // GRID
    within = (rng.random(batch) + np.arange(batch)) * (levels / batch)
    return GRID * (np.floor(within).astype(np.int64).clip(max=levels - 1) + 1) - 1


def main() -> None:
    """Trains, resuming from the last checkpoint, and writes the LoRA."""
    args = arguments(
        __doc__, steps=1000, batch=32, lr=1e-4, rank=16, pictures=6000, model="fastgen/models/mini", decay_from=0.5
    )
    parts = load_trainable(args.model)
    parts.to(device())
    parts.unet.to(memory_format=torch.channels_last)
    add_lora(parts.unet, TARGETS, rank=args.rank, alpha=float(args.rank), seed=0)
    average = train(STAGE, parts.unet, ConsistencyLoss(parts, args), args, weight_decay=0.0, decay_from=args.decay_from)
    parts.unet.load_state_dict(average.weights)
    print("wrote", write_lora(Path(args.work) / "few-step-lora", unet=parts.unet, text_encoder=None))


if __name__ == "__main__":
    main()
