"""Writes a model folder as a single-file checkpoint in the original Stable Diffusion 1.x layout."""

import re
from pathlib import Path

import torch

UNET = [
    (r"time_embedding\.linear_1", "time_embed.0"),
    (r"time_embedding\.linear_2", "time_embed.2"),
    (r"^conv_in", "input_blocks.0.0"),
    (r"^conv_norm_out", "out.0"),
    (r"^conv_out", "out.2"),
    (r"^mid_block\.attentions\.0", "middle_block.1"),
    (r"^mid_block\.resnets\.0", "middle_block.0"),
    (r"^mid_block\.resnets\.1", "middle_block.2"),
    (r"^down_blocks\.(\d)\.resnets\.(\d)", lambda m: f"input_blocks.{3 * int(m[1]) + int(m[2]) + 1}.0"),
    (r"^down_blocks\.(\d)\.attentions\.(\d)", lambda m: f"input_blocks.{3 * int(m[1]) + int(m[2]) + 1}.1"),
    (r"^down_blocks\.(\d)\.downsamplers\.0\.conv", lambda m: f"input_blocks.{3 * int(m[1]) + 3}.0.op"),
    (r"^up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"output_blocks.{3 * int(m[1]) + int(m[2])}.0"),
    (r"^up_blocks\.(\d)\.attentions\.(\d)", lambda m: f"output_blocks.{3 * int(m[1]) + int(m[2])}.1"),
    (r"^up_blocks\.0\.upsamplers\.0", "output_blocks.2.1"),
    (r"^up_blocks\.(\d)\.upsamplers\.0", lambda m: f"output_blocks.{3 * int(m[1]) + 2}.2"),
]
RESNET = [
    (r"\.norm1\.", ".in_layers.0."),
    (r"\.conv1\.", ".in_layers.2."),
    (r"\.norm2\.", ".out_layers.0."),
    (r"\.conv2\.", ".out_layers.3."),
    (r"\.time_emb_proj\.", ".emb_layers.1."),
    (r"\.conv_shortcut\.", ".skip_connection."),
]
VAE = [
    (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    (r"encoder\.down_blocks\.(\d)\.resnets\.", r"encoder.down.\1.block."),
    (r"encoder\.down_blocks\.(\d)\.downsamplers\.0", r"encoder.down.\1.downsample"),
    (r"decoder\.up_blocks\.(\d)\.resnets\.", lambda m: f"decoder.up.{3 - int(m[1])}.block."),
    (r"decoder\.up_blocks\.(\d)\.upsamplers\.0", lambda m: f"decoder.up.{3 - int(m[1])}.upsample"),
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"attn_1\.group_norm", "attn_1.norm"),
    (r"attn_1\.to_(q|k|v)", r"attn_1.\1"),
    (r"attn_1\.to_out\.0", "attn_1.proj_out"),
]


def original_state(model: Path) -> dict[str, torch.Tensor]:
    """The weights of a four-level model folder under their original names."""
    from safetensors.torch import load_file

    def parts(name: str, file: str) -> dict[str, torch.Tensor]:
        return load_file(model / name / file)

    state = {}
    for key, value in parts("unet", "diffusion_pytorch_model.safetensors").items():
        rules = [*UNET, *(RESNET if ".resnets." in key else [])]
        state["model.diffusion_model." + _rename(key, rules)] = value
    for key, value in parts("vae", "diffusion_pytorch_model.safetensors").items():
        name = _rename(key, VAE)
        flat = ".attn_1." in name and name.endswith("weight") and ".norm." not in name
        state["first_stage_model." + name] = value[:, :, None, None] if flat else value
    for key, value in parts("text_encoder", "model.safetensors").items():
        state["cond_stage_model.transformer." + key] = value
    return {key: value.contiguous() for key, value in state.items()}


def write_checkpoint(path: Path, model: Path) -> Path:
    """Write `.safetensors`, or `.ckpt` with the weights below "state_dict"."""
    from safetensors.torch import save_file

    state = original_state(model)
    if path.suffix == ".ckpt":
        torch.save({"state_dict": state, "global_step": 1}, path)
    else:
        save_file(state, path)
    return path


def _rename(key: str, rules: list) -> str:
    for pattern, new in rules:
        key = re.sub(pattern, new, key)
    return key
