"""Judges the mini model with the oracle: `python -m repro.mini.evaluate --work out/mini --model fastgen/models/mini`.

Writes `evaluation.json` and the model card (`README.md`) into the model folder. What is measured:

- text: 592 photos and 400 pictures in all styles from unseen caption wordings, CFG and steps at the model's defaults;
- autoencoder: PSNR of reconstructions of 1 000 test renderings;
- image prompt: 74 references, lambda 0 to 1, against a prompt that names another place and pose, and a neutral prompt;
- scoring CLIP: mean softmax score of fresh pictures of the 37 breeds and of the 12 novel ones.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastgen.clip import ScoringClip
from fastgen.engine.build import build
from fastgen.engine.load import Engine, load_engine
from fastgen.generate.encode import Encoder
from fastgen.generate.run import generate
from fastgen.petworld.attributes import BACKGROUNDS, NOVEL_PETS, OXFORD_PETS, POSES, STYLES, Scene
from fastgen.petworld.captions import TEMPLATE, caption
from fastgen.petworld.render import render, sample_scene
from fastgen.records import Ref, Row
from repro.mini.card import write_card
from repro.mini.data import TEST_SEED, load_images
from repro.mini.oracle import HEADS, judge, load_oracle
from repro.mini.training import arguments, steps_done
from repro.mini.vae import psnr

LAMBDAS = (0.0, 0.2, 0.25, 0.5, 0.75, 1.0)
REFERENCES = 2 * len(OXFORD_PETS)
FULL = frozenset({"breed", "background", "pose", "style"})


class Bench:
    """An engine, an oracle and a scoring CLIP, ready to draw and to judge."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.engine: Engine = load_engine(build(args.model, backend=args.backend, batch=16))
        self.oracle = load_oracle(args.work)
        self.clip = ScoringClip.load(Path(args.model) / "clip")
        self.defaults: dict[str, Any] = json.loads((Path(args.model) / "fastgen.json").read_text())["defaults"]

    def draw(self, rows: list[Row], load: Callable[[Ref], Image.Image] | None = None) -> np.ndarray:
        """Images of rows, uint8 (N, 64, 64, 3), in the rows' order."""
        encoder = Encoder(self.engine, load or _no_reference)
        images = {s.row.id: s.image for s in generate(rows, self.engine, encoder) if s.image is not None}
        return np.stack([images[row.id] for row in rows])

    def row(self, name: str, prompt: str, seed: int, **more: Any) -> Row:
        """A row with the model's defaults."""
        values = {"steps": self.defaults["steps"], "guidance_scale": self.defaults["guidance_scale"]}
        size = self.defaults["size"]
        return Row(
            id=name, class_="pet", prompt=prompt, seed=seed, scheduler=self.defaults["scheduler"],
            width=size, height=size, **(values | more),
        )  # fmt: skip


def _no_reference(ref: Ref) -> Image.Image:
    raise KeyError(ref.id)


def _share(judged: np.ndarray, truth: list[int]) -> float:
    return float((judged == np.array(truth)).mean())


def text_accuracy(bench: Bench, scenes: list[Scene], seed: int) -> dict[str, float]:
    """Share of pictures in which the oracle finds what the unseen caption named, per head."""
    rng = np.random.default_rng(seed)
    rows = [
        bench.row(f"text-{i}", caption(s, rng, parts=FULL, wording="unseen"), seed * 10_000 + i)
        for i, s in enumerate(scenes)
    ]
    judged = judge(bench.oracle, bench.draw(rows))
    return {k: _share(judged[k], [v.index(getattr(s, k)) for s in scenes]) for k, v in HEADS.items()}


def image_prompt(bench: Bench) -> dict[str, Any]:
    """How far the reference wins as lambda grows; see the module docstring."""
    scenes = [
        sample_scene(TEST_SEED + 1, i, breeds=(OXFORD_PETS[i % len(OXFORD_PETS)],), realism=(0.0, 0.15))
        for i in range(REFERENCES)
    ]
    pictures = {f"ref-{i}": Image.fromarray(render(s)) for i, s in enumerate(scenes)}
    target = bench.clip.embed_images(list(pictures.values()))
    others = [_elsewhere(s, i) for i, s in enumerate(scenes)]
    result: dict[str, Any] = {"references": REFERENCES, "lambda": list(LAMBDAS)}
    for name in ("clip_i", "reference_background", "reference_pose", "prompt_background", "prompt_pose"):
        result[name] = []
    result |= {"neutral_breed": [], "conflict_breed": []}
    for value in LAMBDAS:
        conflict = _judged(bench, scenes, [o[2] for o in others], value, pictures)
        neutral = _judged(bench, scenes, ["a photo of a pet"] * len(scenes), value, pictures)
        similarity = (bench.clip.embed_images([Image.fromarray(x) for x in conflict[1]]) * target).sum(1).mean()
        result["clip_i"].append(round(float(similarity), 4))
        for key, values in (("background", BACKGROUNDS), ("pose", POSES)):
            own = [values.index(getattr(s, key)) for s in scenes]
            named = [values.index(o[key == "pose"]) for o in others]
            result[f"reference_{key}"].append(_share(conflict[0][key], own))
            result[f"prompt_{key}"].append(_share(conflict[0][key], named))
        breeds = [OXFORD_PETS.index(s.breed) for s in scenes]
        result["neutral_breed"].append(_share(neutral[0]["breed"], breeds))
        result["conflict_breed"].append(_share(conflict[0]["breed"], breeds))
    return result


def _elsewhere(scene: Scene, index: int) -> tuple[str, str, str]:
    """Another background and pose, and a prompt that names them."""
    rng = np.random.default_rng([TEST_SEED, index])
    background = str(rng.choice([b for b in BACKGROUNDS if b != scene.background]))
    pose = str(rng.choice([p for p in POSES if p != scene.pose]))
    other = Scene(scene.breed, pose, background, "photo", scene.side, scene.light, 0.5, 0.0, 1.0, 0)
    return background, pose, caption(other, rng, parts=frozenset({"breed", "background", "pose"}), wording="unseen")


def _judged(
    bench: Bench, scenes: list[Scene], prompts: list[str], value: float, pictures: dict[str, Image.Image]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rows = [
        bench.row(f"ip-{i}", prompt, 77_000 + i, lambda_=value, ref=Ref(id=f"ref-{i}"))
        for i, (_, prompt) in enumerate(zip(scenes, prompts, strict=True))
    ]
    images = bench.draw(rows, lambda ref: pictures[ref.id])
    return judge(bench.oracle, images), images


def clip_scores(clip: ScoringClip, breeds: tuple[str, ...], realism: tuple[float, float]) -> dict[str, float]:
    """Mean softmax score of the true class, and zero-shot accuracy, over 10 fresh photos of each breed."""
    scenes = [
        sample_scene(TEST_SEED + 2, i, breeds=(breeds[i % len(breeds)],), realism=realism)
        for i in range(10 * len(breeds))
    ]
    image = clip.embed_images([Image.fromarray(render(s)) for s in scenes])
    text = clip.embed_texts([TEMPLATE.replace("{class}", b) for b in breeds])
    logits = clip.scale * image @ text.T
    probability = np.exp(logits - logits.max(1, keepdims=True))
    probability /= probability.sum(1, keepdims=True)
    truth = np.arange(len(scenes)) % len(breeds)
    return {
        "mean_score": float(probability[np.arange(len(scenes)), truth].mean()),
        "zero_shot": _share(probability.argmax(1), truth.tolist()),
    }


def reconstruction(args: argparse.Namespace) -> float:
    """PSNR of the shipped autoencoder in dB."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(args.model, subfolder="vae", torch_dtype=torch.float32)
    return psnr(vae, load_images(args.work, TEST_SEED, 1000))


def main() -> None:
    """Measures everything and writes the model card."""
    args = arguments(__doc__, model="fastgen/models/mini", backend="onnxruntime", photos=592, styled=400)
    bench = Bench(args)
    photos = [sample_scene(TEST_SEED + 3, i, breeds=(OXFORD_PETS[i % len(OXFORD_PETS)],)) for i in range(args.photos)]
    styled = [
        sample_scene(TEST_SEED + 4, i, breeds=OXFORD_PETS, styles=(STYLES[i % len(STYLES)],))
        for i in range(args.styled)
    ]
    result = {
        "defaults": bench.defaults,
        "training": steps_done(args.work),
        "text_photo": {"images": len(photos)} | text_accuracy(bench, photos, 1),
        "text_styles": {"images": len(styled)} | text_accuracy(bench, styled, 2),
        "vae_psnr_db": reconstruction(args),
        "image_prompt": image_prompt(bench),
        "clip": {
            "oxford": clip_scores(bench.clip, OXFORD_PETS, (0.0, 0.15)),
            "oxford_real": clip_scores(bench.clip, OXFORD_PETS, (0.4, 0.8)),
            "novel_real": clip_scores(bench.clip, NOVEL_PETS, (0.4, 0.8)),
        },
    }
    path = Path(args.model) / "evaluation.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    write_card(Path(args.model), result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
