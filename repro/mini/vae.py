"""Trains the autoencoder of the mini model: `python -m repro.mini.vae --work out/mini`.

Factor 4, 16 latent channels: 64 x 64 x 3 pictures become 16 x 16 x 16 latents. `repro.mini.decoder` improves the
decoder afterwards, also while the UNet already learns the latents.
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from repro.mini.data import TRAIN_SEED, load_images
from repro.mini.training import arguments, compile_on_gpu, device, resident, step_rng, to_tensor, train

KL_WEIGHT = 1e-6

SCALING_FACTOR = 0.5
"""Of latents with unit variance. Sixteen channels carry the same layout four times over, so that at scale 1 it shows
through the noise of the last timestep: the first principal component has a variance of 660, and 0.0047 of it is left,
which is three times the noise. At 0.5 it is less than the noise."""


def new_vae() -> AutoencoderKL:
    """The autoencoder with random weights."""
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=16,
        block_out_channels=(24, 48, 96),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=SCALING_FACTOR,
        mid_block_add_attention=False,
        force_upcast=False,
    )
    return vae.to(device(), memory_format=torch.channels_last)


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """Squared and absolute error of pixels, and absolute error of their differences (edges, whiskers, stripes)."""
    edges = sum(F.l1_loss(output.diff(dim=d), target.diff(dim=d)) for d in (2, 3))
    return 2 * F.mse_loss(output, target) + F.l1_loss(output, target) + 0.5 * edges


def draw_pictures(images: Tensor, stage: str, step: int, batch: int) -> Tensor:
    """The pictures of a step, float32 (B, 3, 64, 64) in [-1, 1]."""
    indices = np.sort(step_rng(stage, step).integers(0, len(images), batch))
    return to_tensor(images[torch.from_numpy(indices).to(images.device)])


class VaeLoss:
    """The loss of one step: reconstruction from a sampled latent plus a small KL term."""

    def __init__(self, vae: AutoencoderKL, images: np.ndarray, batch: int) -> None:
        self.vae, self.images, self.batch = vae, resident(images), batch

    def __call__(self, step: int) -> Tensor:
        """Scalar loss of the step's batch."""
        x = draw_pictures(self.images, "vae", step, self.batch)
        posterior = self.vae.encode(x).latent_dist
        output = self.vae.decode(posterior.sample()).sample.float()
        return reconstruction_loss(output, x) + KL_WEIGHT * posterior.kl().float().mean()


@torch.no_grad()
def centre_latents(vae: AutoencoderKL, images: np.ndarray) -> None:
    """Folds mean and scale of the latents into the 1 x 1 convolutions around them, in place.

    Afterwards the latents of the data have zero mean in every channel and unit variance over all channels: no pipeline
    needs a shift.
    """
    latents = torch.cat(
        [vae.encode(to_tensor(images[i : i + 100])).latent_dist.mode() for i in range(0, len(images), 100)]
    )
    mean = latents.mean((0, 2, 3))
    scale = (latents - mean[:, None, None]).std()
    channels = len(mean)
    weight, bias = vae.quant_conv.weight, vae.quant_conv.bias
    bias[:channels] -= mean
    weight[:channels] /= scale
    bias[:channels] /= scale
    bias[channels:] -= 2 * scale.log()  # the second half is the log variance
    vae.post_quant_conv.bias += vae.post_quant_conv.weight[:, :, 0, 0] @ mean
    vae.post_quant_conv.weight *= scale


@torch.no_grad()
def psnr(vae: AutoencoderKL, images: np.ndarray) -> float:
    """Mean peak signal-to-noise ratio of reconstructions in dB, of pictures in [-1, 1]."""
    values = []
    for i in range(0, len(images), 100):
        x = to_tensor(images[i : i + 100])
        y = vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
        values.append(10 * torch.log10(4 / (y - x).square().mean((1, 2, 3))))
    return torch.cat(values).mean().item()


def main() -> None:
    """Trains and prints the reconstruction quality on held-out pictures."""
    args: argparse.Namespace = arguments(__doc__, steps=2700, batch=64, lr=1.2e-3, count=20_000)
    images = load_images(args.work, TRAIN_SEED, args.count)
    learner, vae = new_vae(), new_vae()
    for part in (learner.encoder, learner.decoder):
        compile_on_gpu(part)
    loss = VaeLoss(learner, images[:-1000], args.batch)
    vae.load_state_dict(train("vae", learner, loss, args, decay_from=0.3, half=True).weights)
    centre_latents(vae, images[:4000])
    torch.save({"average": vae.state_dict()}, args.work / "vae-centred.pt")
    print("PSNR:", psnr(vae, images[-1000:]), "dB")


if __name__ == "__main__":
    main()
