"""Trains the CLIP of the mini model: `python -m repro.mini.clip --work out/mini`.

One model gives three parts: its text tower is the text encoder of the UNet, its image tower is the image encoder of
the IP-Adapter, and the whole is the scoring CLIP. Captions mention random subsets of a scene's attributes, so one
caption fits many pictures of a batch: the contrastive targets are therefore all pairs that agree (as in UniCL), known
here from the ground truth. Half of the loss contrasts every picture with the 37 class prompts.
"""

import argparse
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from fastgen.petworld.attributes import OXFORD_PETS, Scene
from fastgen.petworld.captions import TEMPLATE, caption, with_article
from repro.mini.captions import (
    ATTRIBUTES,
    caption_rng,
    kept_table,
    load_captions,
    load_scene_numbers,
    scene_numbers,
)
from repro.mini.data import TRAIN_SEED, load_images, training_scene
from repro.mini.tokenizer import make_tokenizer
from repro.mini.training import arguments, device, resident, step_rng, train

WIDTH = 128
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
CAPTIONS = 8
"""Of every picture."""

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


def pixels(images: Tensor | np.ndarray) -> Tensor:
    """uint8 (B, 64, 64, 3) to CLIP's normalised float32 (B, 3, 64, 64)."""
    x = torch.as_tensor(images).to(device()).float() / 255
    return ((x - x.new_tensor(MEAN)) / x.new_tensor(STD)).permute(0, 3, 1, 2).contiguous()


def draw_parts(scene: Scene, rng: np.random.Generator) -> frozenset[str]:
    """A random, never empty, subset of the attributes to mention; photos may go without their style."""
    while True:
        parts = frozenset(part for part, rate in RATES.items() if rng.random() < rate)
        if parts:
            return parts


def draw_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption of such a subset."""
    return caption(scene, rng, parts=draw_parts(scene, rng))


def drawn_parts(start: int, stop: int) -> np.ndarray:
    """What the captions of the training pictures mention, bool (N, CAPTIONS, 6), in the order of ATTRIBUTES."""
    return np.array(
        [
            [[name in parts for name in ATTRIBUTES] for parts in _parts_of(training_scene(TRAIN_SEED, i), i)]
            for i in range(start, stop)
        ]
    )


def _parts_of(scene: Scene, picture: int) -> list[frozenset[str]]:
    return [draw_parts(scene, caption_rng("clip", picture, number)) for number in range(CAPTIONS)]


def agreement(scenes: Tensor, mentioned: Tensor) -> Tensor:
    """Does picture i show everything that caption j says?

    Args:
        scenes: ground truth of the pictures, integers (B, 6).
        mentioned: what the caption of each of them mentions, bool (B, 6).

    Returns:
        bool (B, B), pictures by captions.
    """
    same = scenes[:, None] == scenes[None, :]
    return (same | ~mentioned[None, :]).all(2)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy against a row-normalised target matrix."""
    return -(targets / targets.sum(1, keepdim=True) * F.log_softmax(logits, 1)).sum(1).mean()


class ClipLoss:
    """The loss of one step; see the module docstring."""

    def __init__(
        self, model: CLIPModel, tokenizer: CLIPTokenizer, images: np.ndarray, args: argparse.Namespace
    ) -> None:
        self.model, self.batch, self.images = model, args.batch, resident(images)
        tokens = load_captions(args.work, "clip", draw_caption, each=CAPTIONS, count=args.count)
        longest = int((tokens != tokenizer.pad_token_id).any(0).any(0).sum()) + 1  # the end may be the padding, too
        self.tokens = tokens[..., :longest].to(device())
        self.parts = kept_table(args.work / f"clip-parts-{args.count}.npy", drawn_parts, args.count).to(device())
        self.scenes = load_scene_numbers(args.work, args.count).to(device())
        classes = [TEMPLATE.replace("a {class}", with_article(c)) for c in OXFORD_PETS]
        plain = [TEMPLATE.replace("{class}", c) for c in OXFORD_PETS]
        self.prompts = [
            tokenizer(texts, padding="max_length", max_length=longest, return_tensors="pt").input_ids.to(device())
            for texts in (classes, plain)
        ]

    def __call__(self, step: int) -> Tensor:
        """Scalar loss of the step's batch."""
        rng = step_rng("clip", step)
        at = torch.from_numpy(np.sort(rng.integers(0, len(self.images), self.batch))).to(device())
        number = torch.from_numpy(rng.integers(0, CAPTIONS, self.batch)).to(device())
        tokens = torch.cat([self.tokens[at, number].long(), self.prompts[step % 2]])
        text = F.normalize(self.model.get_text_features(tokens), dim=-1)
        pictures = self.images[at.to(self.images.device)]
        image = F.normalize(self.model.get_image_features(pixels(pictures)), dim=-1)
        scale = self.model.logit_scale.exp().clamp(max=100)
        logits = scale * image @ text[: self.batch].T
        fits = agreement(self.scenes[at], self.parts[at, number]).to(logits)
        contrast = (soft_cross_entropy(logits, fits) + soft_cross_entropy(logits.T, fits.T)) / 2
        breeds = self.scenes[at, list(ATTRIBUTES).index("breed")].long()
        return contrast + F.cross_entropy(scale * image @ text[self.batch :].T, breeds)


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
    args: argparse.Namespace = arguments(__doc__, steps=2200, batch=256, lr=1e-3, count=60_000)
    images = load_images(args.work, TRAIN_SEED, args.count)
    tokenizer = make_tokenizer(args.work / "tokenizer")
    model: nn.Module = new_clip(tokenizer).to(device())
    average = train("clip", model, ClipLoss(model, tokenizer, images[:-1000], args), args, weight_decay=0.05)
    model.load_state_dict(average.weights)
    model.eval()
    held_out = np.arange(len(images) - 1000, len(images))
    labels = scene_numbers(len(images) - 1000, len(images))[:, list(ATTRIBUTES).index("breed")].astype(int)
    print("zero-shot accuracy, mean score:", zero_shot(model, tokenizer, images[held_out], labels))


if __name__ == "__main__":
    main()
