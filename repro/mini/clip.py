"""Trains the CLIP of the mini model: `python -m repro.mini.clip --work out/mini`.

One model gives three parts: its text tower is the text encoder of the UNet, its image tower is the image encoder of
the IP-Adapter, and the whole is the scoring CLIP. Captions mention random subsets of a scene's attributes, so one
caption fits many pictures of a batch: the contrastive targets are therefore all pairs that agree (as in UniCL), known
here from the ground truth. Half of the loss contrasts every picture with the 37 class prompts.
"""

import argparse
import functools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from fastgen.petworld.attributes import OXFORD_PETS, Scene
from fastgen.petworld.captions import PARTS, TEMPLATE, caption, with_article
from repro.mini.data import TRAIN_SEED, load_images
from repro.mini.tokenizer import make_tokenizer
from repro.mini.training import arguments, device, scenes_at, step_rng, train

WIDTH = 128
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
RATES = {"breed": 0.8, "background": 0.6, "pose": 0.6, "style": 0.7, "light": 0.12, "side": 0.08}


def new_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """A CLIP with 128-wide towers for 64-pixel pictures; random weights."""
    tower: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    }
    tower |= {"hidden_act": "quick_gelu", "projection_dim": WIDTH}
    text = tower | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 77,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = tower | {"image_size": 64, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


def pixels(images: np.ndarray) -> Tensor:
    """uint8 (B, 64, 64, 3) to CLIP's normalised float32 (B, 3, 64, 64)."""
    x = torch.from_numpy(np.ascontiguousarray(images)).to(device()).float() / 255
    return ((x - x.new_tensor(MEAN)) / x.new_tensor(STD)).permute(0, 3, 1, 2).contiguous()


def draw_parts(scene: Scene, rng: np.random.Generator) -> frozenset[str]:
    """A random, never empty, subset of the attributes to mention; photos may go without their style."""
    while True:
        parts = frozenset(part for part, rate in RATES.items() if rng.random() < rate)
        if parts:
            return parts


def agreement(scenes: list[Scene], parts: list[frozenset[str]]) -> np.ndarray:
    """(B, B) bool: does picture i show everything that caption j says?"""
    same = {p: _same([getattr(s, p) for s in scenes]) for p in PARTS}
    fits = np.ones((len(scenes), len(scenes)), bool)
    for j, mentioned in enumerate(parts):
        for part in mentioned:
            fits[:, j] &= same[part][:, j]
    return fits


def _same(values: list[str]) -> np.ndarray:
    column = np.array(values)
    return column[:, None] == column[None, :]


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy against a row-normalised target matrix."""
    return -(targets / targets.sum(1, keepdim=True) * F.log_softmax(logits, 1)).sum(1).mean()


class ClipLoss:
    """The loss of one step; see the module docstring."""

    def __init__(self, model: CLIPModel, tokenizer: CLIPTokenizer, images: np.ndarray, batch: int) -> None:
        self.model, self.images, self.batch = model, images, batch
        self.tokenize = functools.partial(
            tokenizer, padding="longest", truncation=True, max_length=77, return_tensors="pt"
        )
        self.classes = [TEMPLATE.replace("a {class}", with_article(c)) for c in OXFORD_PETS]
        self.plain = [TEMPLATE.replace("{class}", c) for c in OXFORD_PETS]

    def __call__(self, step: int) -> Tensor:
        """Scalar loss of the step's batch."""
        rng = step_rng("clip", step)
        indices = np.sort(rng.choice(len(self.images), self.batch, replace=False))
        scenes = scenes_at(indices)
        parts = [draw_parts(s, rng) for s in scenes]
        texts = [caption(s, rng, parts=p) for s, p in zip(scenes, parts, strict=True)]
        prompts = self.plain if step % 2 else self.classes
        tokens = self.tokenize(texts + prompts).to(device())
        text = F.normalize(self.model.get_text_features(**tokens), dim=-1)
        image = F.normalize(self.model.get_image_features(pixels(self.images[indices])), dim=-1)
        scale = self.model.logit_scale.exp().clamp(max=100)
        logits = scale * image @ text[: self.batch].T
        fits = torch.from_numpy(agreement(scenes, parts)).to(logits)
        contrast = (soft_cross_entropy(logits, fits) + soft_cross_entropy(logits.T, fits.T)) / 2
        labels = torch.tensor([OXFORD_PETS.index(s.breed) for s in scenes], device=device())
        return contrast + F.cross_entropy(scale * image @ text[self.batch :].T, labels)


@torch.no_grad()
def zero_shot(
    model: CLIPModel, tokenizer: CLIPTokenizer, images: np.ndarray, labels: np.ndarray
) -> tuple[float, float]:
    """Zero-shot accuracy and mean softmax score of the true class over the 37 class prompts."""
    prompts = tokenizer([TEMPLATE.replace("{class}", c) for c in OXFORD_PETS], padding=True, return_tensors="pt")
    text = F.normalize(model.get_text_features(**prompts.to(device())), dim=-1)
    image = F.normalize(model.get_image_features(pixels(images)), dim=-1)
    probability = (model.logit_scale.exp() * image @ text.T).softmax(1)
    truth = torch.from_numpy(labels).to(device())
    accuracy = (probability.argmax(1) == truth).float().mean().item()
    return accuracy, probability.gather(1, truth[:, None]).mean().item()


def main() -> None:
    """Trains and prints the zero-shot accuracy on pictures from the end of the training stream."""
    args: argparse.Namespace = arguments(__doc__, steps=1200, batch=128, lr=1e-3, count=60_000)
    images = load_images(args.work, TRAIN_SEED, args.count)
    tokenizer = make_tokenizer(args.work / "tokenizer")
    model: nn.Module = new_clip(tokenizer).to(device())
    average = train("clip", model, ClipLoss(model, tokenizer, images[:-1000], args.batch), args, weight_decay=0.05)
    model.load_state_dict(average.weights)
    model.eval()
    held_out = np.arange(len(images) - 1000, len(images))
    labels = np.array([OXFORD_PETS.index(s.breed) for s in scenes_at(held_out)])
    print("zero-shot accuracy, mean score:", zero_shot(model, tokenizer, images[held_out], labels))


if __name__ == "__main__":
    main()
