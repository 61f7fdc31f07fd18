"""LoRA weight files of every common naming -> low-rank layers by the names of the model's own modules.

    kohya      lora_unet_down_blocks_0_..._attn1_to_q.lora_down.weight, lora_te_text_model_..., .alpha
    diffusers  unet.down_blocks.0...attn1.to_q.lora_A.weight, unet....to_q.lora.down.weight, text_encoder....
    old        unet.down_blocks.0...attn1.processor.to_q_lora.down.weight

Every key of a file is accounted for: one that no module of the model answers to is an error, never skipped. diffusers'
own loader is not used because it drops an alpha or a rank that differs from layer to layer without a word.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fastgen.engine.weights import read_weights
from fastgen.errors import ModelError

KOHYA = {"lora_unet_": "unet", "lora_te_": "text_encoder", "lora_te1_": "text_encoder"}
DOTTED = {"unet.": "unet", "text_encoder.": "text_encoder", "": "unet"}
SIDE = re.compile(r"(?P<layer>.+?)(\.lora_linear_layer|\.lora|_lora)?\.(lora_)?(?P<side>down|up|A|B)\.weight")
DOWN = {"down", "A"}
OLD_NAMES = {
    "unet": {"to_out": "to_out.0"},
    "text_encoder": {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"},
}
"""Last piece of a layer's name as diffusers' old attention processors call it -> the module's name."""

REFUSED = {
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "lora_mid": "LoCon with a CP decomposition",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "oft_": "OFT",
    "lora_te2_": "Stable Diffusion XL",
    "text_encoder_2.": "Stable Diffusion XL",
    ".diff": "full-difference",
}
"""Piece of a key -> the kind of file that has it and that is not a plain LoRA."""

METADATA = "lora_adapter_metadata"
"""Entry of a safetensors file's metadata in which diffusers keeps the peft config of every part."""


@dataclass(slots=True)
class LoraLayer:
    """One module's update, W + scale * alpha / rank * up @ down.

    Attributes:
        down: (rank, in) or (rank, in, k, k).
        up: (out, rank) or (out, rank, 1, 1).
        alpha: None where the file has none, which means alpha = rank.
    """

    down: Tensor | None = None
    up: Tensor | None = None
    alpha: float | None = None


@dataclass(slots=True, kw_only=True)
class LoraPart:
    """What a file holds for the UNet or the text encoder.

    Attributes:
        layers: module name -> its update.
        config: peft's LoraConfig as JSON when the file has one; it decides the scaling instead of `alpha`.
    """

    layers: dict[str, LoraLayer] = field(default_factory=dict)
    config: dict[str, Any] | None = None


def read_lora(path: Path, modules: Mapping[str, nn.Module]) -> dict[str, LoraPart]:
    """Read a LoRA file.

    Args:
        path: `.safetensors` or `.bin`.
        modules: "unet" and "text_encoder".

    Returns:
        Part name -> its layers; only parts that the file has.

    Raises:
        ModelError: not a plain LoRA, or some of its keys belong to no layer of this model; names them.
    """
    state = read_weights(path, "LoRA")
    refuse_other_kinds(state)
    names = {part: _layer_names(module) for part, module in modules.items()}
    parts: dict[str, LoraPart] = {}
    unknown = []
    for key, value in state.items():
        found = SIDE.fullmatch(key)
        layer = found["layer"] if found else key.removesuffix(".alpha")
        part, name = _find_layer(layer, names)
        if part is None or (found is None and layer == key):
            unknown.append(key)
            continue
        entry = parts.setdefault(part, LoraPart()).layers.setdefault(name, LoraLayer())
        if found is None:
            entry.alpha = float(value)
        elif found["side"] in DOWN:
            entry.down = value
        else:
            entry.up = value
    if unknown:
        raise ModelError(f"{len(unknown)} of its {len(state)} keys fit no layer of this model: {some(unknown)}")
    configs = _configs(path)
    for part, found_part in parts.items():
        found_part.config = configs.get(part)
        halves = [name for name, x in found_part.layers.items() if x.down is None or x.up is None]
        if halves:
            raise ModelError(f"of these layers it has only one half: {some(halves)}")
    return parts


def parts_of(path: Path) -> set[str]:
    """Which of "unet" and "text_encoder" the keys of a LoRA file are for; no model is needed.

    Raises:
        ModelError: it cannot be read.
    """
    keys, prefixes = read_weights(path, "LoRA"), KOHYA | DOTTED
    return {next(part for prefix, part in prefixes.items() if key.startswith(prefix)) for key in keys}


def refuse_other_kinds(keys: Iterable[str]) -> None:
    """Raise ModelError when some key says that this is another kind of file than a plain LoRA."""
    for key in keys:
        for piece, kind in REFUSED.items():
            if piece in key:
                raise ModelError(f"it is a {kind} file ({key}); only plain LoRAs and LoCons can be fused")


def some(keys: Iterable[str], shown: int = 4) -> str:
    """Return the first keys and how many more there are."""
    found = sorted(keys)
    more = f" and {len(found) - shown} more" if len(found) > shown else ""
    return ", ".join(found[:shown]) + more


def _layer_names(module: nn.Module) -> dict[str, str]:
    """Name as in files (with dots, and with kohya's underscores) -> name of a layer that has a weight."""
    plain = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return {name.replace(".", "_"): name for name in plain} | {name: name for name in plain}


def _find_layer(layer: str, names: Mapping[str, Mapping[str, str]]) -> tuple[str | None, str]:
    """(part, module name) of a key without its side, (None, "") when no module answers to it."""
    for prefix, part in (KOHYA | DOTTED).items():
        if not layer.startswith(prefix):
            continue
        own = layer.removeprefix(prefix).replace(".processor.", ".")
        stem, _, last = own.rpartition(".")
        for name in (own, f"{stem}.{OLD_NAMES[part].get(last, last)}"):
            if name in names[part]:
                return part, names[part][name]
    return None, ""


def _configs(path: Path) -> dict[str, dict[str, Any]]:
    """Part -> LoraConfig from the file's metadata, for the parts that have one."""
    if path.suffix != ".safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        entries = json.loads((file.metadata() or {}).get(METADATA) or "{}")
    configs: dict[str, dict[str, Any]] = {}
    for key, value in entries.items():
        part, _, name = key.partition(".")
        configs.setdefault(part, {})[name] = value
    return configs
