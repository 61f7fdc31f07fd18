"""LoRAs, fused into the weights once at build: an engine has them or has not, nothing switches at run time."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastgen.engine.spec import hash_files
from fastgen.errors import ModelError
from fastgen.files import sha256_file

PEFT_CONFIG = "adapter_config.json"


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
        """Return {"name", "scale", "files": {relative path: sha256}}."""
        files = {self.path.name: sha256_file(self.path)} if self.path.is_file() else hash_files(self.path)
        return {"name": self.name, "scale": self.scale, "files": files}


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
        ModelError: a LoRA cannot be read or changes nothing in this model.
    """
    for lora in loras:
        before = _checksum(unet), _checksum(text_encoder)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _fuse(lora, unet=unet, text_encoder=text_encoder)
        except ModelError:
            raise
        except Exception as error:  # peft and diffusers raise many unrelated types for a file that does not fit
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
    """Fuse one LoRA with the library whose format it has."""
    parts = {"unet": unet, "text_encoder": text_encoder}
    if lora.path.is_dir():
        folders = {name: lora.path / name for name in parts if (lora.path / name / PEFT_CONFIG).is_file()}
        if (lora.path / PEFT_CONFIG).is_file():
            folders["unet"] = lora.path
        if folders:
            for name, folder in folders.items():
                _fuse_peft(folder, parts[name], lora.scale)
            return
    _fuse_diffusers(lora, unet=unet, text_encoder=text_encoder)


def _fuse_peft(folder: Path, module: Any, scale: float) -> None:
    """Merge an adapter saved by peft into `module`; peft leaves the module's plain layers in place."""
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = PeftModel.from_pretrained(module, str(folder))
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.scale_layer(scale)
    model.merge_and_unload(safe_merge=True)
    if hasattr(module, "peft_config"):
        del module.peft_config


def _fuse_diffusers(lora: Lora, *, unet: Any, text_encoder: Any) -> None:
    """Fuse a file in diffusers' or kohya's format through diffusers' own pipeline methods."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        vae=None,
        text_encoder=text_encoder,
        tokenizer=None,
        unet=unet,
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    file = _weight_file(lora.path)
    pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name="fused", local_files_only=True)
    pipeline.fuse_lora(lora_scale=lora.scale, safe_fusing=True)
    pipeline.unload_lora_weights()


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
