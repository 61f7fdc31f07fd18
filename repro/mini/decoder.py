"""Trains the autoencoder's decoder on the frozen encoder: `python -m repro.mini.decoder --work out/mini`.

The latents stay what they are, so neither UNet nor IP-Adapter has to know.
"""

import argparse

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from repro.mini.data import TRAIN_SEED, load_images
from repro.mini.training import arguments, compile_on_gpu, load_average, resident, train
from repro.mini.vae import draw_pictures, new_vae, psnr, reconstruction_loss


class DecoderLoss:
    """The loss of one step: reconstruction from the latent that pipelines use, the mode."""

    def __init__(self, vae: AutoencoderKL, images: np.ndarray, batch: int) -> None:
        self.vae, self.images, self.batch = vae, resident(images), batch

    def __call__(self, step: int) -> Tensor:
        """Scalar loss of the step's batch."""
        x = draw_pictures(self.images, "vae-decoder", step, self.batch)
        with torch.no_grad():
            latents = self.vae.encode(x).latent_dist.mode()
        return reconstruction_loss(self.vae.decode(latents).sample.float(), x)


def main() -> None:
    """Trains and prints the reconstruction quality on held-out pictures."""
    args: argparse.Namespace = arguments(__doc__, steps=4400, batch=16, lr=8e-4, count=16_000)
    images = load_images(args.work, TRAIN_SEED, args.count)
    learner, vae = new_vae(), new_vae()
    learner.load_state_dict(load_average(args.work / "vae-centred.pt"))
    for part in (learner.encoder, learner.quant_conv):
        part.requires_grad_(False)
    for part in (learner.encoder, learner.decoder):
        compile_on_gpu(part)
    loss = DecoderLoss(learner, images[:-1000], args.batch)
    vae.load_state_dict(train("vae-decoder", learner, loss, args, half=True).weights)
    print("PSNR:", psnr(vae, images[-1000:]), "dB")


if __name__ == "__main__":
    main()
