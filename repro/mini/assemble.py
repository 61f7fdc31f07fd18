"""Writes the trained parts as a model folder: `python -m repro.mini.assemble --work out/mini --to fastgen/models/mini`.

Diffusers layout in half precision, the IP-Adapter in the official key layout, the scoring CLIP in open_clip's, the
ResNet in timm's, and `fastgen.json` with the defaults that `fastgen run` takes for this model.
"""

import json
import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from repro.mini.clip import MEAN, STD, WIDTH, new_clip
from repro.mini.ip_adapter import image_encoder, new_adapter
from repro.mini.resnet import MODEL_ARGS
from repro.mini.tokenizer import make_tokenizer
from repro.mini.training import arguments, load_average
from repro.mini.unet import TextEncoder, new_scheduler, new_unet
from repro.mini.vae import new_vae

DEFAULTS = {"steps": 25, "guidance_scale": 3.0, "scheduler": "ddim", "size": 64}


def half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point tensors as contiguous float16 on the CPU."""
    return {k: (v.half() if v.is_floating_point() else v).cpu().contiguous() for k, v in state.items()}


def open_clip_weights(clip: CLIPModel) -> dict[str, Tensor]:
    """The weights of a transformers CLIP under open_clip's names."""
    state = clip.state_dict()
    weights = {
        "logit_scale": state["logit_scale"],
        "text_projection": state["text_projection.weight"].T,
        "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        "token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        "visual.proj": state["visual_projection.weight"].T,
        "visual.class_embedding": state["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": state["vision_model.embeddings.position_embedding.weight"],
        "visual.conv1.weight": state["vision_model.embeddings.patch_embedding.weight"],
    }
    norms = {
        "ln_final": "text_model.final_layer_norm",
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
    }
    for kind in ("weight", "bias"):
        weights |= {f"{to}.{kind}": state[f"{name}.{kind}"] for to, name in norms.items()}
        for to, name in (("transformer", "text_model"), ("visual.transformer", "vision_model")):
            for i in range(clip.config.text_config.num_hidden_layers):
                weights |= _open_clip_block(state, f"{to}.resblocks.{i}", f"{name}.encoder.layers.{i}", kind)
    return weights


def _open_clip_block(state: dict[str, Tensor], to: str, name: str, kind: str) -> dict[str, Tensor]:
    qkv = [state[f"{name}.self_attn.{p}_proj.{kind}"] for p in "qkv"]
    names = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    block = {f"{to}.{a}.{kind}": state[f"{name}.{b}.{kind}"] for a, b in names.items()}
    return block | {f"{to}.attn.in_proj_{kind}": torch.cat(qkv)}


def write_scoring_clip(clip: CLIPModel, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Writes an open_clip folder (`open_clip.create_model("local-dir:...")`)."""
    folder.mkdir(parents=True)
    tower = {"width": WIDTH, "layers": 4}
    config = {
        "model_cfg": {
            "embed_dim": WIDTH,
            "quick_gelu": True,
            "vision_cfg": tower | {"image_size": 64, "patch_size": 8, "head_width": 32},
            "text_cfg": tower
            | {"context_length": 77, "vocab_size": len(tokenizer), "heads": 4, "hf_tokenizer_name": "."},
        },
        "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(half(open_clip_weights(clip)), folder / "open_clip_model.safetensors")
    tokenizer.save_pretrained(folder)


def write_resnet(work: Path, folder: Path) -> None:
    """Writes a timm folder (`timm.create_model("local-dir:...")`)."""
    folder.mkdir(parents=True)
    config = {
        "architecture": "resnet10t",
        "num_classes": MODEL_ARGS["num_classes"],
        "model_args": {k: v for k, v in MODEL_ARGS.items() if k != "num_classes"},
        "pretrained_cfg": {
            "input_size": [3, 64, 64],
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "first_conv": "conv1.0",
            "classifier": "fc",
        },
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(half(load_average(work / "resnet.pt")), folder / "model.safetensors")


def main() -> None:
    """Writes the folder, replacing what an earlier run of this command wrote there."""
    args = arguments(__doc__, to="fastgen/models/mini", count=60_000)
    to = Path(args.to)
    shutil.rmtree(to, ignore_errors=True)
    tokenizer = make_tokenizer(args.work / "tokenizer")
    clip = new_clip(tokenizer)
    clip.load_state_dict(load_average(args.work / "clip.pt"))
    vae, unet = new_vae(), new_unet()
    decoder = args.work / "vae-decoder.pt"
    vae.load_state_dict(load_average(decoder if decoder.exists() else args.work / "vae-centred.pt"))
    unet.load_state_dict(load_average(args.work / "unet.pt"))
    processor = CLIPImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, image_mean=list(MEAN), image_std=list(STD)
    )
    pipeline = StableDiffusionPipeline(
        vae, TextEncoder(args).model, tokenizer, unet, new_scheduler(), None, processor, image_encoder(args), False
    )
    pipeline.to(torch.float16).save_pretrained(to)
    adapter = new_adapter(args)
    adapter.load_state_dict(load_average(args.work / "ip-adapter.pt"))
    (to / "ip_adapter").mkdir()
    save_file(half(adapter.adapter_state_dict()), to / "ip_adapter" / "ip-adapter_mini.safetensors")
    write_scoring_clip(clip, tokenizer, to / "clip")
    write_resnet(args.work, to / "resnet")
    (to / "fastgen.json").write_text(json.dumps({"defaults": DEFAULTS}, indent=2) + "\n")
    size = sum(f.stat().st_size for f in to.rglob("*") if f.is_file()) / 1e6
    print(f"{to}: {size:.1f} MB")


if __name__ == "__main__":
    main()
