"""Trains the UNet of the mini model: `python -m repro.mini.unet --work out/mini`.

Needs the checkpoints of `repro.mini.clip` (frozen text encoder) and `repro.mini.vae` (frozen latents). v-prediction,
min-SNR weighting (gamma 5, floor 1), caption dropout 0.1, AdamW, averaged weights. Steps may be raised between runs:
the rate stays constant until `--decay-from` of the steps.
"""

import argparse

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel

from fastgen.petworld.attributes import Scene
from fastgen.petworld.captions import PARTS, caption
from repro.mini.captions import load_captions
from repro.mini.clip import new_clip
from repro.mini.data import TRAIN_SEED, load_images
from repro.mini.tokenizer import make_tokenizer
from repro.mini.training import arguments, compile_on_gpu, device, load_average, step_rng, to_tensor, train
from repro.mini.vae import SCALING_FACTOR, new_vae

CAPTION_DROPOUT = 0.1
CAPTIONS = 8
"""Of every picture."""

NEGATIVE = (
    *("monochrome", "lowres", "bad anatomy", "worst quality", "low quality"),  # IP-Adapter's default, and DALDA's
    *("blurry", "deformed", "ugly", "watermark", "cropped", "out of focus", "jpeg artifacts", "extra legs", "text"),
)

SNR_GAMMA = 5.0
FULL = frozenset({"breed", "background", "pose", "style"})


def new_unet() -> UNet2DConditionModel:
    """The UNet with random weights: 16 x 16 x 16 latents, 128-wide text, cross-attention at 16 x 16 and 8 x 8."""
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=16,
        out_channels=16,
        block_out_channels=(80, 144),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=128,
        attention_head_dim=(5, 6),  # diffusers' name for the number of heads: they are 16 and 24 wide
        norm_num_groups=16,
    )
    return unet.to(device(), memory_format=torch.channels_last)


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule with v-prediction and a higher end.

    At its end 0.00004 of the variance of the latents is left (0.005 in Stable Diffusion). Latents of 16 channels carry
    the same layout several times over (the first principal component has 165 times the variance of a unit), so that
    Stable Diffusion's last timestep still shows it, and the UNet learns to take poses from the start noise, not from
    the text.
    """
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.025,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


class TextEncoder:
    """The frozen text tower: tokens to (B, 77, 128)."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.tokenizer = make_tokenizer(args.work / "tokenizer")
        clip = new_clip(self.tokenizer)
        clip.load_state_dict(load_average(args.work / "clip.pt"))
        self.model = CLIPTextModel(clip.config.text_config)
        self.model.text_model.load_state_dict(clip.text_model.state_dict())
        self.model.to(device()).eval()

    @torch.no_grad()
    def __call__(self, tokens: Tensor) -> Tensor:
        """Encodes token ids (B, 77), padded as in Stable Diffusion's pipeline, to the last hidden state."""
        return self.model(tokens.to(device()).long()).last_hidden_state

    def without_content(self) -> Tensor:
        """Token ids of `texts_without_content`, int16 (N, 77)."""
        tokens = self.tokenizer(texts_without_content(), padding="max_length", max_length=77, return_tensors="pt")
        return tokens.input_ids.to(device(), torch.int16)


def texts_without_content() -> list[str]:
    """What stands in for a dropped caption: mostly nothing, and negative prompts, which are the other half of guidance.

    To a model that never met them they would be captions of something strange, and guidance would lead away from that:
    here to white skies and drawings.
    """
    rng = np.random.default_rng(0)
    some = [", ".join(rng.permutation(NEGATIVE)[: rng.integers(1, 7)].tolist()) for _ in range(12)]
    return [""] * 24 + [", ".join(NEGATIVE[:5])] * 12 + some


@torch.no_grad()
def load_latents(args: argparse.Namespace) -> Tensor:
    """Scaled latents of the first N training pictures, float16 (N, 16, 16, 16), encoded on the first call and kept.

    On the training device.
    """
    path = args.work / f"latents-{args.pictures}.pt"
    if not path.exists():
        vae = new_vae()
        vae.load_state_dict(load_average(args.work / "vae-centred.pt"))
        images = load_images(args.work, TRAIN_SEED, args.count)[: args.pictures]
        parts = []
        for i in range(0, len(images), 250):
            parts.append(vae.encode(to_tensor(images[i : i + 250])).latent_dist.mode().half().cpu())
        torch.save(torch.cat(parts).contiguous(), path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    return torch.load(path, weights_only=True).mul_(SCALING_FACTOR).to(device())


def add_noise(clean: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Noises every row to a timestep of its own.

    One timestep is drawn in each of B equal parts of the schedule, which halves the variance of the loss.

    Args:
        clean: latents, (B, C, h, w).
        alphas: cumulative alphas of the whole schedule, (T,).

    Returns:
        The noisy latents (channels last), the noise, and the timesteps, int64 (B,).
    """
    rows, steps = len(clean), len(alphas)
    within = torch.rand(rows, device=clean.device) + torch.arange(rows, device=clean.device)
    t = (within * (steps / rows)).long().clamp(max=steps - 1)
    noise = torch.randn_like(clean)
    a = alphas[t][:, None, None, None]
    noisy = a.sqrt() * clean + (1 - a).sqrt() * noise
    return noisy.contiguous(memory_format=torch.channels_last), noise, t


def v_loss(output: Tensor, clean: Tensor, noise: Tensor, alphas: Tensor) -> Tensor:
    """V-prediction loss with the weight min(max(snr, 1), gamma) / (snr + 1).

    Min-SNR (arXiv 2303.09556, section 3.4) with the floor of truncated SNR (arXiv 2202.00512, section 4): 256 positions
    of 16 channels show the layout at an snr far below 1, where min-SNR alone hardly looks.

    Args:
        output, clean, noise: (B, C, h, w).
        alphas: cumulative alphas of the rows' timesteps, (B,).
    """
    a = alphas[:, None, None, None]
    target = a.sqrt() * noise - (1 - a).sqrt() * clean
    snr = alphas / (1 - alphas)
    weight = snr.clamp(1, SNR_GAMMA) / (snr + 1)
    return ((output - target).square().mean((1, 2, 3)) * weight).mean() / weight.mean()


def training_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption for the UNet: half are complete, half mention what they happen to; who names no style wants a photo."""
    complete = rng.random() < 0.5
    rates = {part: 0.1 if part not in FULL else 1.0 if complete else 0.7 for part in sorted(PARTS)}
    parts = {part for part, rate in rates.items() if rng.random() < rate}
    if scene.style != "photo":
        parts.add("style")
    return caption(scene, rng, parts=frozenset(parts))


class UNetLoss:
    """The loss of one step."""

    def __init__(self, unet: UNet2DConditionModel, args: argparse.Namespace) -> None:
        self.unet, self.batch = unet, args.batch
        self.latents, self.encode = load_latents(args), TextEncoder(args)
        captions = load_captions(args.work, "unet", training_caption, each=CAPTIONS, count=args.pictures)
        self.captions, self.nothing = captions.to(device()), self.encode.without_content()
        self.alphas = new_scheduler().alphas_cumprod.to(device())

    def __call__(self, step: int) -> Tensor:
        """Scalar loss of the step's batch."""
        rng = step_rng("unet", step)
        at = torch.from_numpy(rng.integers(0, len(self.latents) - 1000, self.batch)).to(device())
        number = torch.from_numpy(rng.integers(0, CAPTIONS, self.batch)).to(device())
        dropped = torch.from_numpy(rng.random(self.batch) < CAPTION_DROPOUT).to(device())
        nothing = self.nothing[torch.from_numpy(rng.integers(0, len(self.nothing), self.batch)).to(device())]
        text = self.encode(torch.where(dropped[:, None], nothing, self.captions[at, number]))
        clean = self.latents[at].float()
        noisy, noise, t = add_noise(clean, self.alphas)
        return v_loss(self.unet(noisy, t, text).sample.float(), clean, noise, self.alphas[t])


def main() -> None:
    """Trains, resuming from the last checkpoint."""
    args = arguments(__doc__, steps=3400, batch=512, lr=1e-3, count=60_000, pictures=60_000, decay_from=0.5)
    unet = new_unet()
    loss = UNetLoss(unet, args)
    compile_on_gpu(unet)
    train("unet", unet, loss, args, decay_from=args.decay_from, half=True)


if __name__ == "__main__":
    main()
