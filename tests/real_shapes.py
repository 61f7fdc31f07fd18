"""Writes random-weight models and adapters with the published shapes, or narrower ones with the same traits.

    python -m tests.real_shapes sd15 FOLDER              # true shapes, half precision: 2 GB, plus 1.3 GB of adapters
    python -m tests.real_shapes sd21 FOLDER --scale 10   # the same traits, a few MB

The folder is in diffusers layout; beside its parts it gets `adapters/`, laid out as the published files are:
ip-adapter.safetensors, ip-adapter-plus.bin, image_encoder/, kohya.safetensors and peft/.
"""

import json
import math
from pathlib import Path

import click
import torch

WORDS = "a photo of the cat dog bird red blue small on grass in snow best quality high low lowres monochrome".split()
VOCABULARY = 49408
KINDS = ("sd15", "sd21")
RANK, ALPHA = 4, 2.0


def narrow(width: int, scale: int) -> int:
    """A width divided by `scale`, still a multiple of the 32 groups of a GroupNorm."""
    return width if scale == 1 else max(32, width // scale // 32 * 32)


def unet_config(kind: str, scale: int = 1) -> dict:
    """Of runwayml's 1.5 and stabilityai's 2.1 (768, v-prediction)."""
    widths = [narrow(width, scale) for width in (320, 640, 1280, 1280)]
    own = {
        "sd15": {"cross_attention_dim": narrow(768, scale), "attention_head_dim": 8},
        "sd21": {
            "cross_attention_dim": narrow(1024, scale),
            "attention_head_dim": [width // (64 if scale == 1 else 8) for width in widths],
            "use_linear_projection": True,
            "upcast_attention": True,
        },
    }
    return {
        "sample_size": 8 if scale > 1 else {"sd15": 64, "sd21": 96}[kind],
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": widths,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        **own[kind],
    }


def vae_config(kind: str, scale: int = 1) -> dict:
    """The VAE of both."""
    return {
        "block_out_channels": [narrow(width, scale) for width in (128, 256, 512, 512)],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": {"sd15": 512, "sd21": 768}[kind],
        "scaling_factor": 0.18215,
    }


def text_config(kind: str, scale: int = 1) -> dict:
    """CLIP ViT-L/14's text encoder, or OpenCLIP ViT-H/14's without its last layer."""
    width, heads, layers, act = {"sd15": (768, 12, 12, "quick_gelu"), "sd21": (1024, 16, 23, "gelu")}[kind]
    hidden = narrow(width, scale)
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_attention_heads": heads if scale == 1 else hidden // 16,
        "num_hidden_layers": layers if scale == 1 else 2,
        "hidden_act": act,
        "max_position_embeddings": 77,
        "projection_dim": {"sd15": 768, "sd21": 512}[kind],
        "bos_token_id": VOCABULARY - 2,
        "eos_token_id": VOCABULARY - 1,
        "pad_token_id": 1,
    }


def image_config(scale: int = 1) -> dict:
    """OpenCLIP ViT-H/14, the encoder of the adapters for 1.5."""
    hidden = narrow(1280, scale)
    return {
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_attention_heads": 16 if scale == 1 else 4,
        "num_hidden_layers": 32 if scale == 1 else 3,
        "image_size": 224 if scale == 1 else 56,
        "patch_size": 14,
        "projection_dim": narrow(1024, scale),
        "hidden_act": "gelu",
    }


def scheduler_config(kind: str) -> dict:
    """PNDM for 1.5; DDIM and v-prediction for 2.1."""
    common = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
    own = {
        "sd15": {"_class_name": "PNDMScheduler", "skip_prk_steps": True},
        "sd21": {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"},
    }
    return {**common, **own[kind]}


def write_model(folder: Path, kind: str, *, scale: int = 1, half: bool = False, seed: int = 0) -> Path:
    """Write a model folder in diffusers layout; with `half`, only the fp16 variant of every weight file."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPImageProcessor, CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    makers = {
        "unet": lambda: UNet2DConditionModel(**unet_config(kind, scale)),
        "vae": lambda: AutoencoderKL(**vae_config(kind, scale)),
        "text_encoder": lambda: CLIPTextModel(CLIPTextConfig(**text_config(kind, scale))),
    }
    for name, make in makers.items():  # one at a time: together they would need 4 GB
        part = make().half() if half else make()
        part.save_pretrained(folder / name, variant="fp16" if half else None)
        del part
    side = image_config(scale)["image_size"]
    extractor = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    extractor.save_pretrained(folder / "feature_extractor")
    write_tokenizer(folder / "tokenizer")
    scheduler = scheduler_config(kind)
    _write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "safety_checker": [None, None],
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    _write_json(folder / "model_index.json", index)
    return folder


def write_tokenizer(folder: Path) -> Path:
    """Write a CLIP tokenizer that knows WORDS, with the true number of entries; the rest stands for nothing."""
    from transformers.models.clip.tokenization_clip import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    entries = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            merges.append(f"{pieces[0]} {pieces[1]}")
            pieces[:2] = [pieces[0] + pieces[1]]
            entries.append(pieces[0])
    entries = list(dict.fromkeys(entries))
    entries += [f"<unused-{i}>" for i in range(VOCABULARY - 2 - len(entries))]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    _write_json(folder / "vocab.json", {entry: i for i, entry in enumerate(entries)})
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *dict.fromkeys(merges)]) + "\n")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>"}
    _write_json(folder / "tokenizer_config.json", config)
    return folder


def meta_parts(kind: str, scale: int = 1) -> dict:
    """UNet and text encoder without memory: for names and shapes."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**unet_config(kind, scale))
        return {"unet": unet, "text_encoder": CLIPTextModel(CLIPTextConfig(**text_config(kind, scale)))}


def write_image_encoder(folder: Path, *, scale: int = 1, half: bool = False, seed: int = 0) -> Path:
    """Write a CLIPVisionModelWithProjection."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(seed)
    encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**image_config(scale)))
    encoder = encoder.half() if half else encoder
    encoder.save_pretrained(folder, variant="fp16" if half else None)
    return folder


def write_ip_adapter(path: Path, unet, *, clip_dim: int, plus: bool, seed: int = 0) -> Path:
    """Write an adapter in the official layout: flat for `.safetensors`, nested for `.bin`.

    Args:
        path: the file.
        unet: gives the cross-attention layers; may lie on the meta device.
        clip_dim: width of the encoder's image embeddings, or of its hidden states for plus.
        plus: 16 tokens by a resampler instead of 4 by one layer.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    width = unet.config.cross_attention_dim
    image = _resampler(clip_dim, width) if plus else _projection(clip_dim, width)
    attention = {}
    for i, name in enumerate(unet.attn_processors):
        if "attn2" in name:
            inner = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
            attention |= {f"{i}.{key}.weight": _matrix(inner, width) for key in ("to_k_ip", "to_v_ip")}
    _write_state({"image_proj": image, "ip_adapter": attention}, path)
    return path


def write_kohya(path: Path, parts: dict, *, seed: int = 0) -> Path:
    """Write a LoRA as kohya's trainer does: attention and feed-forward layers of both parts, with alpha."""
    torch.manual_seed(seed)
    state = {}
    for prefix, part, pieces in (
        ("lora_unet_", parts["unet"], ("attn", ".ff.", "proj_in", "proj_out")),
        ("lora_te_", parts["text_encoder"], ("self_attn", "mlp")),
    ):
        for name, layer in part.named_modules():
            if hasattr(layer, "weight") and layer.weight.ndim > 1 and any(piece in name for piece in pieces):
                down, up = _low_rank(layer.weight.shape)
                key = prefix + name.replace(".", "_")
                alpha = torch.tensor(ALPHA)
                state |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": alpha}
    _write_state(state, path)
    return path


def write_peft(folder: Path, unet, *, seed: int = 0) -> Path:
    """Write a LoRA of the UNet's attention as peft does."""
    from peft import LoraConfig

    torch.manual_seed(seed)
    targets = ("to_q", "to_k", "to_v", "to_out.0")
    state = {}
    for name, layer in unet.named_modules():
        if name.endswith(targets):
            down, up = _low_rank(layer.weight.shape)
            key = f"base_model.model.{name}"
            state |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
    folder.mkdir(parents=True, exist_ok=True)
    LoraConfig(r=RANK, lora_alpha=int(ALPHA), target_modules=list(targets)).save_pretrained(str(folder))
    _write_state(state, folder / "adapter_model.safetensors")
    return folder


def write_adapters(folder: Path, kind: str, *, scale: int = 1, half: bool = False) -> Path:
    """Write every kind of adapter for a model, and the image encoder beside them."""
    parts, image = meta_parts(kind, scale), image_config(scale)
    write_image_encoder(folder / "image_encoder", scale=scale, half=half)
    base, plus = folder / "ip-adapter.safetensors", folder / "ip-adapter-plus.bin"
    write_ip_adapter(base, parts["unet"], clip_dim=image["projection_dim"], plus=False)
    write_ip_adapter(plus, parts["unet"], clip_dim=image["hidden_size"], plus=True)
    write_kohya(folder / "kohya.safetensors", parts)
    write_peft(folder / "peft", parts["unet"])
    return folder


def _projection(clip_dim: int, width: int) -> dict[str, torch.Tensor]:
    return {
        "proj.weight": _matrix(4 * width, clip_dim),
        "proj.bias": 0.5 * torch.randn(4 * width),
        "norm.weight": 1 + 0.1 * torch.randn(width),
        "norm.bias": 0.1 * torch.randn(width),
    }


def _resampler(clip_dim: int, width: int) -> dict[str, torch.Tensor]:
    """16 queries, 4 layers, heads of 64; as wide as its tokens."""
    inner = max(64, width // 64 * 64)
    state = {"latents": torch.randn(1, 16, width) / width**0.5}
    for name, columns in (("proj_in", clip_dim), ("proj_out", width)):
        state |= {f"{name}.weight": _matrix(width, columns), f"{name}.bias": 0.1 * torch.randn(width)}
    norms = ["norm_out", *(f"layers.{i}.{name}" for i in range(4) for name in ("0.norm1", "0.norm2", "1.0"))]
    for name in norms:
        state |= {f"{name}.weight": 1 + 0.1 * torch.randn(width), f"{name}.bias": 0.1 * torch.randn(width)}
    for i in range(4):
        state |= {
            f"layers.{i}.0.to_q.weight": _matrix(inner, width),
            f"layers.{i}.0.to_kv.weight": _matrix(2 * inner, width),
            f"layers.{i}.0.to_out.weight": _matrix(width, inner),
            f"layers.{i}.1.1.weight": _matrix(4 * width, width),
            f"layers.{i}.1.3.weight": _matrix(width, 4 * width),
        }
    return state


def _matrix(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns) / math.sqrt(columns)


def _low_rank(shape: torch.Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Down and up of one layer, (rank, in, ...) and (out, rank, ...)."""
    down = torch.randn(RANK, *shape[1:]) / math.sqrt(math.prod(shape[1:]))
    return down, 0.3 * torch.randn(shape[0], RANK, *(1 for _ in shape[2:]))


def _write_state(state: dict, path: Path) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".bin":
        torch.save(state, path)
        return
    flat = {}
    for key, value in state.items():
        nested = value.items() if isinstance(value, dict) else [("", value)]
        flat |= {f"{key}.{name}".rstrip("."): tensor.contiguous() for name, tensor in nested}
    save_file(flat, path)


def _write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--scale", default=1, show_default=True, help="Divides every width.")
def main(kind: str, folder: Path, scale: int) -> None:
    """Write a model folder of one kind, with adapters beside its parts."""
    write_model(folder, kind, scale=scale, half=True)
    write_adapters(folder / "adapters", kind, scale=scale, half=True)


if __name__ == "__main__":
    main()
