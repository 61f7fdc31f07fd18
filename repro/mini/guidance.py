"""Puts guidance into the weights: `python -m repro.mini.guidance --work out/mini --model fastgen/models/mini`.

Guidance costs two executions of the UNet a step. A LoRA learns to say in one what the two say together at one guidance
scale: the first stage of guided diffusion's distillation (arXiv 2210.03142, section 3.1), with the scale fixed. The
result, in `<work>/guidance-lora`, is for `fastgen build --lora guidance=FOLDER` and rows with `"guidance_scale": 1`,
under any scheduler; negative prompts have no effect on them. bench/quality.py measures it.
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

STAGE = "guidance"
SCALE = 3.0
"""Of the guidance that is learnt: the model's own default."""

TARGETS = (
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "time_emb_proj"),
    *("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"),
)
"""The layers that diffusers' own distillation of LoRAs adapts."""


@torch.no_grad()
def load_latents(args: argparse.Namespace, vae: AutoencoderKL) -> Tensor:
    """Scaled latents of the first training pictures, float16 (N, C, h, w); encoded on the first call and kept."""
    path = args.work / f"guidance-latents-{args.pictures}.pt"
    if not path.exists():
        images = load_images(args.work, TRAIN_SEED, args.pictures)
        pieces = [images[i : i + 100] for i in range(0, len(images), 100)]
        found = [vae.encode(to_tensor(piece)).latent_dist.mode().half().cpu() for piece in pieces]
        torch.save(torch.cat(found).mul_(vae.config.scaling_factor), path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    return torch.load(path, weights_only=True).to(device())


class GuidanceLoss:
    """The loss of one step; teacher and student are one UNet, with its LoRA switched off and on."""

    def __init__(self, parts: Parts, args: argparse.Namespace) -> None:
        self.parts, self.batch = parts, args.batch
        self.alphas, self.latents = parts.alphas.to(device()), load_latents(args, parts.vae)
        self.captions = load_captions(args.work, "unet", training_caption, each=CAPTIONS, count=args.pictures)
        self.nothing = self._encode(parts.token_ids([""]))

    def __call__(self, step: int) -> Tensor:
        """Scalar loss of the step's batch: mean squared distance of two predictions."""
        rng = step_rng(STAGE, step)
        at, number = rng.integers(0, len(self.latents), self.batch), rng.integers(0, CAPTIONS, self.batch)
        clean, text = self.latents[torch.from_numpy(at)].float(), self._encode(self.captions[at, number])
        t = torch.from_numpy(draw_timesteps(self.batch, rng)).to(device())
        noisy = add_noise(clean, torch.randn_like(clean), self.alphas[t])
        target = self.guided(noisy, t, text)
        return (self.parts.unet(noisy, t, text, return_dict=False)[0] - target).square().mean()

    @torch.no_grad()
    def guided(self, noisy: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """What the teacher predicts with guidance, (B, C, h, w)."""
        unet, nothing = self.parts.unet, self.nothing.expand_as(text)
        unet.disable_adapters()
        both = unet(torch.cat([noisy, noisy]), torch.cat([t, t]), torch.cat([nothing, text]), return_dict=False)[0]
        unet.enable_adapters()
        without, with_ = both.chunk(2)
        return without + SCALE * (with_ - without)

    @torch.no_grad()
    def _encode(self, tokens: Tensor) -> Tensor:
        """Token ids (B, 77) -> (B, 77, D)."""
        return self.parts.text_encoder(tokens.to(device()).long(), return_dict=False)[0]


def draw_timesteps(batch: int, rng: np.random.Generator) -> np.ndarray:
    """Timesteps from 0 to 999, int64 (B,), one in each of B equal parts of the schedule."""
    return ((rng.random(batch) + np.arange(batch)) * (1000 / batch)).astype(np.int64)


def main() -> None:
    """Trains, resuming from the last checkpoint, and writes the LoRA."""
    args = arguments(
        __doc__, steps=450, batch=16, lr=5e-4, rank=16, pictures=6000, model="fastgen/models/mini", decay_from=0.5
    )
    parts = load_trainable(args.model)
    parts.to(device())
    parts.unet.to(memory_format=torch.channels_last)
    add_lora(parts.unet, TARGETS, rank=args.rank, alpha=float(args.rank), seed=0)
    average = train(STAGE, parts.unet, GuidanceLoss(parts, args), args, weight_decay=0.0, decay_from=args.decay_from)
    parts.unet.load_state_dict(average.weights)
    print("wrote", write_lora(Path(args.work) / "guidance-lora", unet=parts.unet, text_encoder=None))


if __name__ == "__main__":
    main()
