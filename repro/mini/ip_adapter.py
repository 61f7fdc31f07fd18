"""Trains the IP-Adapter of the mini model on the frozen UNet: `python -m repro.mini.ip_adapter --work out/mini`.

As in IP-Adapter's code: only the projection and the to_k_ip / to_v_ip layers learn, each condition is dropped with
probability 0.05, and both together with 0.05. Two things differ, because PetWorld's complete captions leave the image
branch nothing to add:

- at a lambda of 0.7 to 1 the caption is short ("a photo of a pet", the breed alone, a few attributes), or it names
  another place and pose than the picture's, so that the adapter learns to win;
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
from fastgen.petworld.attributes import BACKGROUNDS, OXFORD_PETS, POSES, Scene
from fastgen.petworld.captions import caption
from repro.mini.captions import ATTRIBUTES, Write, load_captions, load_scene_numbers
from repro.mini.clip import new_clip, pixels
from repro.mini.data import TRAIN_SEED, load_images
from repro.mini.tokenizer import make_tokenizer
from repro.mini.training import arguments, compile_on_gpu, device, load_average, step_rng, train
from repro.mini.unet import TextEncoder, add_noise, load_latents, new_scheduler, new_unet, v_loss

DROP_TEXT, DROP_IMAGE, DROP_BOTH = 0.05, 0.05, 0.05
TOKENS = 4
ELSEWHERE, CONFLICT = 0.25, 0.2
FAR, NEAR = (0.1, 0.4), (0.7, 1.0)
"""Lambda of the rows whose reference gives way, and of half of the others (the rest have 1): DALDA's two ranges."""

CAPTIONS = 4
"""Of every picture and kind."""


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
    """Image embeddings of the training pictures, float32 (N, 128) on the training device; computed once and kept."""
    path = args.work / f"image-embeddings-{args.pictures}.pt"
    if not path.exists():
        model, images = image_encoder(args), load_images(args.work, TRAIN_SEED, args.count)[: args.pictures]
        parts = [model(pixels(images[i : i + 500])).image_embeds.cpu() for i in range(0, len(images), 500)]
        torch.save(torch.cat(parts), path)
    return torch.load(path, weights_only=True).to(device())


def short_caption(scene: Scene, rng: np.random.Generator) -> str:
    """What is said beside a reference at full weight: little or nothing of what the picture shows."""
    u = rng.random()
    if u < 0.35:
        return str(rng.choice(["a photo of a pet", "a pet", "a photo of an animal", "best quality, high quality"]))
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


def described_caption(scene: Scene, rng: np.random.Generator) -> str:
    """Names place, pose and style, and often the breed: what is said beside a reference at a small weight."""
    said = {"background", "pose", "style"} | ({"breed"} if rng.random() < 0.6 else set())
    return caption(scene, rng, parts=frozenset(said))


KINDS: dict[str, Write] = {"described": described_caption, "conflicting": conflicting_caption, "short": short_caption}


class Rows(NamedTuple):
    """Training examples: which pictures to draw, which to look at, how much, and what is said.

    Attributes:
        target, reference: numbers of pictures, int64 (B,).
        scale: lambda, float32 (B,).
        kind: of the caption, an index into KINDS, int64 (B,).
        drop_text, drop_image: conditions that are left out, bool (B,).
    """

    target: np.ndarray
    reference: np.ndarray
    scale: np.ndarray
    kind: np.ndarray
    drop_text: np.ndarray
    drop_image: np.ndarray


def draw_rows(breeds: np.ndarray, members: list[np.ndarray], batch: int, rng: np.random.Generator) -> Rows:
    """Draws the examples of a step.

    Args:
        breeds: breed of every picture, integers (N,).
        members: the pictures of every breed.
        batch: B.
        rng: source of all randomness.
    """
    target = rng.integers(0, len(breeds), batch)
    u, v = rng.random(batch), rng.random(batch)
    elsewhere = u < ELSEWHERE
    kind = np.where(elsewhere, 0, np.where(u < ELSEWHERE + CONFLICT, 1, 2))
    reference = target.copy()
    for i in np.flatnonzero(elsewhere):
        reference[i] = rng.choice(members[breeds[target[i]]])
    near = np.where(rng.random(batch) < 0.5, 1.0, rng.uniform(*NEAR, batch))
    scale = np.where(elsewhere, rng.uniform(*FAR, batch), near).astype(np.float32)
    drop_text = (v < DROP_TEXT) | (v > 1 - DROP_BOTH)
    drop_image = ((v >= DROP_TEXT) & (v < DROP_TEXT + DROP_IMAGE)) | (v > 1 - DROP_BOTH)
    return Rows(target, reference, scale, kind, drop_text, drop_image)


class AdapterLoss:
    """The loss of one step."""

    def __init__(self, model: ConditionedUNet, args: argparse.Namespace) -> None:
        self.model, self.batch = model, args.batch
        self.latents, self.embeddings, self.encode = load_latents(args), load_embeddings(args), TextEncoder(args)
        scenes = load_scene_numbers(args.work, args.pictures)[: args.pictures - 1000]
        self.breeds = scenes[:, list(ATTRIBUTES).index("breed")].numpy()
        self.members = [np.flatnonzero(self.breeds == b) for b in range(len(OXFORD_PETS))]
        tables = [load_captions(args.work, k, w, each=CAPTIONS, count=args.pictures) for k, w in KINDS.items()]
        self.captions, self.nothing = torch.stack(tables).to(device()), self.encode.without_content()
        self.alphas = new_scheduler().alphas_cumprod.to(device())

    def __call__(self, step: int) -> Tensor:
        """Scalar loss of the step's batch."""
        rng = step_rng("ip-adapter", step)
        numbers = rng.integers(0, CAPTIONS, self.batch)
        rows = Rows(*(torch.from_numpy(x).to(device()) for x in draw_rows(self.breeds, self.members, self.batch, rng)))
        said = self.captions[rows.kind, rows.target, torch.from_numpy(numbers).to(device())]
        nothing = self.nothing[torch.from_numpy(rng.integers(0, len(self.nothing), self.batch)).to(device())]
        text = self.encode(torch.where(rows.drop_text[:, None], nothing, said))
        tokens = self.model.project(self.embeddings[rows.reference] * ~rows.drop_image[:, None])
        clean = self.latents[rows.target].float()
        noisy, noise, t = add_noise(clean, self.alphas)
        output = self.model(noisy, t, text, tokens, rows.scale).float()
        return v_loss(output, clean, noise, self.alphas[t])


def new_adapter(args: argparse.Namespace) -> ConditionedUNet:
    """The trained UNet, frozen, with a fresh adapter."""
    unet = new_unet()
    unet.load_state_dict(load_average(args.work / "unet.pt"))
    unet.requires_grad_(False)
    return ConditionedUNet.new(unet, num_tokens=TOKENS, clip_dim=128)


def main() -> None:
    """Trains, resuming from the last checkpoint."""
    args = arguments(__doc__, steps=1900, batch=256, lr=1e-3, count=60_000, pictures=60_000, decay_from=0.5)
    model = new_adapter(args)
    loss = AdapterLoss(model, args)
    compile_on_gpu(model)
    train("ip-adapter", model, loss, args, decay_from=args.decay_from, half=True)


if __name__ == "__main__":
    main()
