"""Trains a LoRA with which the model draws in 8 steps without guidance: `python -m repro.mini.few_step_lora`.

Progressive distillation of the guided model (arXiv 2202.00512, section 3; guidance as in arXiv 2210.03142, section 3.2,
at one weight): one step of the student from t to t - 125 goes where two DDIM steps of the teacher with guidance go.
Text and image prompt steer both as they do in the engine, at any lambda from 0 to 1. The teacher is the shipped model,
so no other stage of the recipe has to run first.

    python -m repro.mini.few_step_lora --work out/mini --minutes 15
    fastgen build --lora few-step=out/mini/few-step-lora.safetensors
    fastgen run --bank prompts/pets.jsonl --scheduler ddim_trailing --steps 8 --guidance 1
"""

import argparse
import copy
from functools import partial
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from fastgen.engine.model import Model, load_model
from fastgen.engine.model_files import find_sources
from repro.mini.captions import caption_tokens, kept_table
from repro.mini.data import TRAIN_SEED, load_images
from repro.mini.training import arguments, device, step_rng, to_tensor, train
from repro.mini.unet import new_scheduler, training_caption

STAGE = "few-step-lora"
STEPS = 8
GUIDANCE = 3.0
"""The model's own default, which the student learns to do without."""

WITH_REFERENCE = 0.5
"""Share of the rows that see their own picture as the image prompt."""

CAPTIONS = 2
"""Of every picture."""

LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2"]


class Data:
    """What a step draws from: latents, captions and image-prompt tokens of training pictures, all in memory."""

    def __init__(self, model: Model, args: argparse.Namespace) -> None:
        folder = Path(model.tokenizer.name_or_path)
        write = partial(caption_tokens, "unet", training_caption, CAPTIONS, folder)
        name = f"few-step-{args.pictures}"
        self.captions = kept_table(args.work / f"captions-{name}x{CAPTIONS}.npy", write, args.pictures)
        path = args.work / f"latents-{name}.pt"
        if not path.exists():
            torch.save(_encode(model, load_images(args.work, TRAIN_SEED, args.pictures)), path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
        self.latents, self.tokens = torch.load(path, map_location=device(), weights_only=True)


@torch.no_grad()
def _encode(model: Model, images: np.ndarray) -> tuple[Tensor, Tensor]:
    """Scaled latents (N, C, h, w) and image-prompt tokens (N, T, D) of pictures."""
    latents, tokens, scale = [], [], model.modules["vae_decoder"].vae.config.scaling_factor
    for i in range(0, len(images), 100):
        part = images[i : i + 100]
        latents.append(model.modules["vae_encoder"](to_tensor(part).contiguous()).chunk(2, dim=1)[0] * scale)
        pixels = model.feature_extractor([Image.fromarray(x) for x in part], return_tensors="pt").pixel_values
        tokens.append(model.modules["image_encoder"](pixels.to(device())))
    return torch.cat(latents), torch.cat(tokens)


class FewStepLoss:
    """The loss of one step: mean squared error of v, which weights the clean image by snr + 1."""

    def __init__(self, model: Model, student: nn.Module, args: argparse.Namespace) -> None:
        self.teacher, self.student, self.batch = model.modules["unet"], student, args.batch
        self.data, self.encode = Data(model, args), model.modules["text_encoder"]
        nothing = model.tokenizer("", padding="max_length", max_length=77, return_tensors="pt").input_ids
        self.nothing = self.encode(nothing.to(device()))
        self.no_image = model.uncond_image_embeds.to(device())
        self.alphas = new_scheduler().alphas_cumprod.to(device())

    def __call__(self, step: int) -> Tensor:
        """Scalar loss of the step's batch."""
        rng, rows = step_rng(STAGE, step), self.batch
        at = torch.from_numpy(rng.integers(0, len(self.data.latents), rows))
        number = torch.from_numpy(rng.integers(0, CAPTIONS, rows))
        seen = torch.from_numpy(rng.random(rows) < WITH_REFERENCE)
        scale = (torch.from_numpy(rng.random(rows)).float() * seen).to(device())
        t = torch.from_numpy(rng.integers(1, STEPS + 1, rows)).to(device()) * (1000 // STEPS) - 1
        clean = self.data.latents[at]
        a = self.alphas[t][:, None, None, None]
        noisy = a.sqrt() * clean + (1 - a).sqrt() * torch.randn_like(clean)
        with torch.no_grad():
            text = self.encode(self.data.captions[at, number].long().to(device()))
            image = torch.where(seen.to(device())[:, None, None], self.data.tokens[at], self.no_image)
            target = self._target(noisy, t, text, image, scale)
        return (self.student(noisy, t, text, image, scale) - target).square().mean()

    def _target(self, x: Tensor, t: Tensor, text: Tensor, image: Tensor, scale: Tensor) -> Tensor:
        """The v with which one DDIM step goes where the teacher goes in two."""
        middle, end = t - 1000 // STEPS // 2, t - 1000 // STEPS
        there = x
        for now, then in ((t, middle), (middle, end)):
            there = _ddim(there, self._guided(there, now, text, image, scale), self._alpha(now), self._alpha(then))
        return _v_between(x, there, self._alpha(t), self._alpha(end))

    def _guided(self, x: Tensor, t: Tensor, text: Tensor, image: Tensor, scale: Tensor) -> Tensor:
        without, with_ = self.teacher(
            torch.cat([x, x]),
            torch.cat([t, t]),
            torch.cat([self.nothing.expand_as(text), text]),
            torch.cat([self.no_image.expand_as(image), image]),
            torch.cat([scale, scale]),
        ).chunk(2)
        return without + GUIDANCE * (with_ - without)

    def _alpha(self, t: Tensor) -> Tensor:
        """Cumulative alpha, (B, 1, 1, 1); before the first timestep that of the first, as the scheduler has it."""
        return self.alphas[t.clamp(min=0)][:, None, None, None]


def _ddim(x: Tensor, v: Tensor, a: Tensor, then: Tensor) -> Tensor:
    """One DDIM step from cumulative alpha `a` to `then`."""
    clean, noise = a.sqrt() * x - (1 - a).sqrt() * v, a.sqrt() * v + (1 - a).sqrt() * x
    return then.sqrt() * clean + (1 - then).sqrt() * noise


def _v_between(x: Tensor, there: Tensor, a: Tensor, then: Tensor) -> Tensor:
    """The v for which `_ddim(x, v, a, then)` is `there`."""
    # there = cos(q - p) x + sin(q - p) v with cos p = sqrt(a) and cos q = sqrt(then); q < p
    cosine = (a * then).sqrt() + ((1 - a) * (1 - then)).sqrt()
    sine = a.sqrt() * (1 - then).sqrt() - (1 - a).sqrt() * then.sqrt()
    return (there - cosine * x) / sine


def main() -> None:
    """Trains, resuming from the last checkpoint, and writes the LoRA in diffusers' naming."""
    args = arguments(__doc__, steps=1000, batch=32, lr=1e-3, pictures=6000, rank=16, model="fastgen/models/mini")
    model = load_model(find_sources(args.model))
    for module in model.modules.values():
        module.to(device())
    student = copy.deepcopy(model.modules["unet"])
    student.unet.add_adapter(LoraConfig(r=args.rank, lora_alpha=args.rank, target_modules=LAYERS))
    average = train(STAGE, student, FewStepLoss(model, student, args), args, warmup=20)
    student.load_state_dict(average.weights)
    weights = {name: x.half().contiguous().cpu() for name, x in get_peft_model_state_dict(student.unet).items()}
    path = args.work / f"{STAGE}.safetensors"
    save_file(weights, path)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
