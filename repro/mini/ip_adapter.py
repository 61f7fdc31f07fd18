"""Trains the IP-Adapter of the mini model on the frozen UNet: `python -m repro.mini.ip_adapter --work out/mini`.

As in IP-Adapter's code: only the projection and the to_k_ip / to_v_ip layers learn, each condition is dropped with
probability 0.05, and both together with 0.05. Two things differ, because PetWorld's complete captions leave the image
branch nothing to add:

- at lambda 1 the caption is short ("a photo of a pet", the breed alone, a few attributes), or it names another place
  and pose than the picture's, so that the adapter learns to win;
- a quarter of the rows have a lambda of 0.1 to 0.4 and a reference that shows the same breed elsewhere, with a caption
  that describes the target's place and pose, so that the adapter learns to give way there and keep the breed.
"""

import argparse
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from fastgen.engine.adapters import ConditionedUNet
from fastgen.petworld.attributes import BACKGROUNDS, POSES, Scene
from fastgen.petworld.captions import caption
from repro.mini.clip import new_clip, pixels
from repro.mini.data import TRAIN_SEED, load_images
from repro.mini.tokenizer import make_tokenizer
from repro.mini.training import arguments, device, load_average, scenes_at, step_rng, train
from repro.mini.unet import TextEncoder, add_noise, load_latents, new_scheduler, new_unet, v_loss

DROP_TEXT, DROP_IMAGE, DROP_BOTH = 0.05, 0.05, 0.05
TOKENS = 4
ELSEWHERE, CONFLICT = 0.25, 0.2


class Row(NamedTuple):
    """One training example: which picture to draw, which one to look at, how much, and what is said."""

    target: int
    reference: int
    scale: float
    text: str
    drop_image: bool


def image_encoder(args: argparse.Namespace) -> CLIPVisionModelWithProjection:
    """The image tower of the trained CLIP."""
    clip = new_clip(make_tokenizer(args.work / "tokenizer"))
    clip.load_state_dict(load_average(args.work / "clip.pt"))
    model = CLIPVisionModelWithProjection(clip.config.vision_config)
    model.vision_model.load_state_dict(clip.vision_model.state_dict())
    model.visual_projection.load_state_dict(clip.visual_projection.state_dict())
    return model.to(device()).eval()


@torch.no_grad()
def load_embeddings(args: argparse.Namespace) -> Tensor:
    """Image embeddings of the training pictures, float32 (N, 128), computed on the first call and kept."""
    path = args.work / f"image-embeddings-{args.pictures}.pt"
    if not path.exists():
        model, images = image_encoder(args), load_images(args.work, TRAIN_SEED, args.count)[: args.pictures]
        parts = [model(pixels(images[i : i + 500])).image_embeds.cpu() for i in range(0, len(images), 500)]
        torch.save(torch.cat(parts), path)
    return torch.load(path, weights_only=True)


def short_caption(scene: Scene, rng: np.random.Generator) -> str:
    """What is said beside a reference at full weight: little or nothing of what the picture shows."""
    u = rng.random()
    if u < 0.35:
        return rng.choice(["a photo of a pet", "a pet", "a photo of an animal", "best quality, high quality"])
    if u < 0.6:
        return caption(scene, rng, parts=frozenset({"breed"}))
    return caption(
        scene, rng, parts=frozenset(p for p in ("breed", "background", "pose", "style") if rng.random() < 0.4)
    )


def conflicting_caption(scene: Scene, rng: np.random.Generator) -> str:
    """Names another background and pose than the scene's."""
    places = [b for b in BACKGROUNDS if b != scene.background]
    poses = [p for p in POSES if p != scene.pose]
    other = replace(scene, background=str(rng.choice(places)), pose=str(rng.choice(poses)))
    breed = {"breed"} if rng.random() < 0.7 else set()
    return caption(other, rng, parts=frozenset({"background", "pose"} | breed))


def draw_row(scenes: list[Scene], by_breed: dict[str, np.ndarray], target: int, rng: np.random.Generator) -> Row:
    """Draws the example that teaches to draw picture `target`."""
    scene, reference, scale = scenes[target], target, 1.0
    u = rng.random()
    if u < ELSEWHERE:
        reference, scale = int(rng.choice(by_breed[scene.breed])), rng.uniform(0.1, 0.4)
        said = {"background", "pose", "style"} | ({"breed"} if rng.random() < 0.6 else set())
        text = caption(scene, rng, parts=frozenset(said))
    elif u < ELSEWHERE + CONFLICT:
        text = conflicting_caption(scene, rng)
    else:
        text = short_caption(scene, rng)
    v = rng.random()
    drop_text = v < DROP_TEXT or v > 1 - DROP_BOTH
    drop_image = DROP_TEXT <= v < DROP_TEXT + DROP_IMAGE or v > 1 - DROP_BOTH
    return Row(target, reference, scale, "" if drop_text else text, drop_image)


class AdapterLoss:
    """The loss of one step."""

    def __init__(self, model: ConditionedUNet, args: argparse.Namespace) -> None:
        self.model, self.batch = model, args.batch
        self.latents, self.embeddings, self.encode = load_latents(args), load_embeddings(args), TextEncoder(args)
        self.scenes = scenes_at(np.arange(len(self.latents) - 1000))
        breeds = np.array([s.breed for s in self.scenes])
        self.by_breed = {b: np.flatnonzero(breeds == b) for b in np.unique(breeds)}
        self.alphas = new_scheduler().alphas_cumprod.to(device())

    def __call__(self, step: int) -> Tensor:
        """Scalar loss of the step's batch."""
        rng = step_rng("ip-adapter", step)
        targets = rng.integers(0, len(self.scenes), self.batch)
        rows = [draw_row(self.scenes, self.by_breed, int(t), rng) for t in targets]
        clean = self.latents[torch.tensor([r.target for r in rows])].to(device()).float()
        seen = self.embeddings[torch.tensor([r.reference for r in rows])].to(device())
        kept = torch.tensor([not r.drop_image for r in rows], device=device())
        tokens = self.model.project(seen * kept[:, None])
        scale = torch.tensor([r.scale for r in rows], dtype=torch.float32, device=device())
        noisy, noise, t = add_noise(clean, self.alphas)
        output = self.model(noisy, t, self.encode([r.text for r in rows]), tokens, scale)
        return v_loss(output, clean, noise, self.alphas[t])


def new_adapter(args: argparse.Namespace) -> ConditionedUNet:
    """The trained UNet, frozen, with a fresh adapter."""
    unet = new_unet()
    unet.load_state_dict(load_average(args.work / "unet.pt"))
    unet.requires_grad_(False)
    return ConditionedUNet.new(unet, num_tokens=TOKENS, clip_dim=128)


def main() -> None:
    """Trains, resuming from the last checkpoint."""
    args = arguments(__doc__, steps=2000, batch=32, lr=1e-3, count=60_000, pictures=60_000, decay_from=0.5)
    model = new_adapter(args)
    train("ip-adapter", model, AdapterLoss(model, args), args, decay_from=args.decay_from)


if __name__ == "__main__":
    main()
