"""LoRAs, fused into the weights once at build: an engine has them or has not, nothing switches at run time."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastgen.engine.lora_file import LoraLayer, parts_of, read_lora, some
from fastgen.engine.spec import hash_files
from fastgen.engine.weights import read_weights
from fastgen.errors import ModelError

PEFT_CONFIG = "adapter_config.json"
PEFT_PREFIX = "base_model.model."
TARGETS = {"unet": "unet", "text_encoder": "text"}
"""Part of the model -> what bank rows call it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """One LoRA to fuse.

    Attributes:
        name: what bank rows call it.
        path: a weight file in diffusers' or kohya's format, a folder with one, or a folder written by peft:
            `adapter_config.json` in it (UNet), or in its subfolders `unet` and `text_encoder`.
        scale: strength; 1 is as trained.
    """

    name: str
    path: Path
    scale: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """Return {"name", "scale", "targets": ["text", "unet"], "files": {relative path: sha256}} of what fusing reads.

        Raises:
            ModelError: it cannot be read.
        """
        folders = _peft_folders(self.path, TARGETS)
        read = [file for folder in folders.values() for file in (folder / PEFT_CONFIG, _peft_weights(folder))]
        read = read or [_weight_file(self.path)]
        parts = folders or parts_of(read[0])
        home = self.path.parent if self.path.is_file() else self.path
        # only what is read: beside it lie logs, plots and samples of the training
        files = hash_files(home, [file.relative_to(home).as_posix() for file in read])
        targets = sorted(TARGETS[part] for part in parts)
        return {"name": self.name, "scale": self.scale, "targets": targets, "files": files}


def parse_loras(texts: Sequence[str]) -> tuple[Lora, ...]:
    """Read NAME=PATH[@SCALE] arguments, in the order in which they are fused.

    Raises:
        ModelError: a text is not of that form, its path does not exist, or a name occurs twice.
    """
    loras: list[Lora] = []
    for text in texts:
        name, _, rest = text.partition("=")
        if not name or not rest:
            raise ModelError(
                f"LoRA {text!r}: write NAME=PATH or NAME=PATH@SCALE, for example pets=pets.safetensors@0.8"
            )
        path, scale = Path(rest), 1.0
        if not path.exists() and "@" in rest:
            head, _, number = rest.rpartition("@")
            path, scale = Path(head), _scale(number, text)
        if not path.exists():
            raise ModelError(f"LoRA {name}: {path} does not exist; give a .safetensors file or a folder")
        if name in {lora.name for lora in loras}:
            raise ModelError(f"LoRA {name} is given twice; every LoRA needs its own name")
        loras.append(Lora(name=name, path=path, scale=scale))
    return tuple(loras)


def fuse_loras(loras: Sequence[Lora], *, unet: Any, text_encoder: Any) -> None:
    """Add every LoRA to the weights of `unet` and `text_encoder`, in place and in order.

    Args:
        loras: what to fuse.
        unet: plain diffusers UNet2DConditionModel.
        text_encoder: plain transformers CLIPTextModel.

    Raises:
        ModelError: a LoRA cannot be read, has keys that fit no layer, or changes nothing in this model.
    """
    for lora in loras:
        before = _checksum(unet), _checksum(text_encoder)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _fuse(lora, unet=unet, text_encoder=text_encoder)
        except Exception as error:  # peft raises many unrelated types for a file that does not fit
            raise ModelError(f"LoRA {lora.name} ({lora.path}) does not fit this model: {error}") from error
        if lora.scale != 0 and before == (_checksum(unet), _checksum(text_encoder)):
            raise ModelError(f"LoRA {lora.name} ({lora.path}) changes no weight of this model; is it for another one?")


def _scale(number: str, text: str) -> float:
    try:
        scale = float(number)
    except ValueError:
        scale = math.nan
    if not math.isfinite(scale):
        raise ModelError(f"LoRA {text!r}: the scale after @ must be a number, got {number!r} (or the path is wrong)")
    return scale


def _fuse(lora: Lora, *, unet: Any, text_encoder: Any) -> None:
    """Fuse one LoRA: peft's own folders and configs with peft, everything else directly."""
    from peft import LoraConfig

    modules = {"unet": unet, "text_encoder": text_encoder}
    folders = _peft_folders(lora.path, modules)
    for name, folder in folders.items():
        _fuse_peft(modules[name], *_read_peft(folder), lora.scale)
    if folders:
        return
    for name, part in read_lora(_weight_file(lora.path), modules).items():
        if part.config is None:
            _fuse_layers(modules[name], part.layers, lora.scale)
        else:
            _fuse_peft(modules[name], LoraConfig(**part.config), _peft_state(part.layers), lora.scale)


def _fuse_layers(module: Any, layers: Mapping[str, LoraLayer], scale: float) -> None:
    """Add every layer's update to its module's weight, in float32."""
    problems = []
    for name, layer in layers.items():
        assert layer.down is not None and layer.up is not None
        weight = module.get_submodule(name).weight
        down, up = layer.down.float().flatten(1), layer.up.float().flatten(1)
        rank = len(down)
        if up.shape != (len(weight), rank) or down.shape[1] != weight[0].numel():
            problems.append(f"{name} adds {(len(up), down.shape[1])} to {(len(weight), weight[0].numel())}")
            continue
        alpha = rank if layer.alpha is None else layer.alpha
        weight.data += (scale * alpha / rank * (up @ down)).view_as(weight)
    if problems:
        raise ModelError(f"its layers have other shapes: {some(problems)}; use one made for this base model")


def _peft_folders(path: Path, names: Iterable[str]) -> dict[str, Path]:
    """Part -> folder that peft wrote for it; empty for a file or another folder."""
    if (path / PEFT_CONFIG).is_file():
        return {"unet": path}
    return {name: path / name for name in names if (path / name / PEFT_CONFIG).is_file()}


def _read_peft(folder: Path) -> tuple[Any, dict[str, Any]]:
    """peft's config, and the weights by module name, of a folder that peft wrote."""
    from peft import LoraConfig, PeftConfig

    config = PeftConfig.from_pretrained(str(folder))
    if not isinstance(config, LoraConfig):
        raise ModelError(f"{folder / PEFT_CONFIG} is a {config.peft_type}, only LORA can be fused")
    state = read_weights(_peft_weights(folder), "LoRA")
    return config, {key.removeprefix(PEFT_PREFIX): value for key, value in state.items()}


def _peft_weights(folder: Path) -> Path:
    """The weights that peft wrote."""
    files = [folder / name for name in ("adapter_model.safetensors", "adapter_model.bin") if (folder / name).is_file()]
    if not files:
        raise ModelError(f"{folder} has no adapter_model.safetensors")
    return files[0]


def _peft_state(layers: Mapping[str, LoraLayer]) -> dict[str, Any]:
    """Layers as peft names them."""
    sides = {"lora_A": "down", "lora_B": "up"}
    return {f"{name}.{key}.weight": getattr(x, side) for name, x in layers.items() for key, side in sides.items()}


def _fuse_peft(module: Any, config: Any, state: Mapping[str, Any], scale: float) -> None:
    """Merge a LoRA into `module` with peft, which leaves the module's plain layers in place."""
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import set_peft_model_state_dict

    model = PeftModel(module, config)
    found = set_peft_model_state_dict(model, {PEFT_PREFIX + key: value for key, value in state.items()})
    missing = [key for key in found.missing_keys if ".lora_" in key]
    if found.unexpected_keys or missing:
        keys = some(found.unexpected_keys or missing)
        raise ModelError(f"its keys and its config do not fit this model together: {keys}")
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.scale_layer(scale)
    model.merge_and_unload(safe_merge=True)
    if hasattr(module, "peft_config"):
        del module.peft_config


def _weight_file(path: Path) -> Path:
    """The file itself, or the one in a folder: pytorch_lora_weights.safetensors, else the only .safetensors."""
    if path.is_file():
        return path
    found = sorted(path.glob("pytorch_lora_weights.safetensors")) or sorted(path.glob("*.safetensors"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise ModelError(f"LoRA folder {path}: need one .safetensors file or peft's {PEFT_CONFIG}, found {names}")
    return found[0]


def _checksum(module: Any) -> float:
    """A number that changes when weights do."""
    return sum(float(p.detach().double().abs().sum()) for p in module.parameters())
