"""Writes the model card of the mini model from its measured numbers."""

from pathlib import Path
from typing import Any

TARGETS = {"breed": 0.85, "background": 0.92, "pose": 0.92}


def write_card(folder: Path, result: dict[str, Any], *, to: Path | None = None) -> Path:
    """Writes README.md.

    Args:
        folder: the model folder.
        result: content of its evaluation.json, from `repro.mini.evaluate`.
        to: folder of the card; None: the model folder.
    """
    names = ("unet", "vae", "text_encoder", "image_encoder", "ip_adapter", "clip", "resnet")
    sizes = {name: _megabytes(folder / name) for name in names}
    path = (to or folder) / "README.md"
    path.write_text(CARD.format(
        total=sum(sizes.values()), parts=", ".join(f"{name} {size:.1f} MB" for name, size in sizes.items()),
        steps=result["defaults"]["steps"], guidance=result["defaults"]["guidance_scale"],
        text=_text_table(result), image=_image_table(result["image_prompt"]), psnr=result["vae_psnr_db"],
        short="" if result["vae_psnr_db"] >= 31 else SHORT,
        references=result["image_prompt"]["references"], trained=_trained(result["training"]),
        **{f"score_{k}": v["mean_score"] for k, v in result["clip"].items()},
    ))  # fmt: skip
    return path


def _megabytes(path: Path) -> float:
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / 1e6


def _trained(stages: dict[str, list[int]]) -> str:
    return ", ".join(f"{stage} {steps:,} x {batch}".replace(",", " ") for stage, (steps, batch) in stages.items())


def _text_table(result: dict[str, Any]) -> str:
    photo, styles = result["text_photo"], result["text_styles"]
    lines = [
        f"| named in the prompt | photos ({photo['images']}) | all styles ({styles['images']}) | aim |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {head} | {100 * photo[head]:.1f} % | {100 * styles[head]:.1f} % | >= {100 * aim:.0f} % |"
        for head, aim in TARGETS.items()
    ]
    return "\n".join([*lines, f"| style | – | {100 * styles['style']:.1f} % | >= 85 % |"])


def _image_table(measured: dict[str, Any]) -> str:
    rows = {
        "CLIP similarity to the reference": "clip_i",
        "background of the reference": "reference_background",
        "pose of the reference": "reference_pose",
        "background of the prompt": "prompt_background",
        "pose of the prompt": "prompt_pose",
        'breed, prompt "a photo of a pet"': "neutral_breed",
    }
    lines = ["| lambda | " + " | ".join(f"{v:g}" for v in measured["lambda"]) + " |"]
    lines.append("|---" * (len(measured["lambda"]) + 1) + "|")
    for name, key in rows.items():
        values = [f"{v:.3f}" if key == "clip_i" else f"{100 * v:.0f} %" for v in measured[key]]
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    return "\n".join(lines)


SHORT = "; the loss still fell at the end: more decoder steps would reach it"

CARD = """# fastgen mini

A Stable Diffusion small enough to ship ({total:.1f} MB in half precision), which draws PetWorld: 37 breeds, 5 poses, 10
places, 8 styles, 64 x 64 pixels. It is an ordinary diffusers folder with an IP-Adapter in the official layout, a
scoring CLIP for open_clip and a ResNet for timm. It exists so that everything in fastgen can be run, measured and
tested without a download; it knows nothing of the real world.

Parts: {parts}.

## How it was trained

By the commands in `repro/mini/README.md`, on PetWorld renderings alone (60 000 pictures, the autoencoder 20 000 of
them; realism below 0.15 for four of five). v-prediction, min-SNR weighting with a floor, caption dropout 0.1, a noise
schedule that ends lower than Stable Diffusion's; the IP-Adapter on the frozen UNet with image and text dropout 0.05
each. The ResNet learnt 64 made-up breeds and has never seen the 37 or the 12 novel ones; no part has seen a picture
of the novel ones.

Steps x batch: {trained}.
The last 700 steps of the UNet and the last 300 of the adapter had a batch of 32 and a fresh optimiser: they taught the
model negative prompts, which the recipe has from the start now.

## What it can do

Measured by `python -m repro.mini.evaluate`, judged by a classifier trained on other renderings; captions with unseen
wordings, DDIM {steps} steps, guidance {guidance}.

{text}

Autoencoder: {psnr:.2f} dB (aim: >= 31 dB{short}).

Image prompt, {references} references, against a prompt that names another place and pose:

{image}

Scoring CLIP, mean softmax score of the true class: 37 breeds {score_oxford:.2f} (as the generator's data),
{score_oxford_real:.2f} ("real" pictures); 12 novel breeds {score_novel_real:.2f}.
"""
