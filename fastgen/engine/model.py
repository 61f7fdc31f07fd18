"""Model folders in diffusers layout -> torch modules with the engine's inputs and outputs.

The embedded model is such a folder too: `mini` is looked up in fastgen/models, then everything is the same.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fastgen.engine.lora import Lora, fuse_loras
from fastgen.engine.spec import hash_files
from fastgen.errors import ModelError
from fastgen.files import sha256_file

EMBEDDED = Path(__file__).resolve().parent.parent / "models"

PARTS = {"text_encoder": "CLIPTextModel", "unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
"""Folder of a part -> the one class of it that engines are made from."""

DEFAULTS = {"steps": 30, "guidance_scale": 7.5}
"""Generation settings of a model that has no fastgen.json."""

DEFAULT_KEYS = {"steps", "guidance_scale", "scheduler", "size"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The files a model is made of; nothing is loaded yet.

    Attributes:
        id: embedded name, folder name or hub id.
        folder: in diffusers layout.
        adapter: IP-Adapter file, or None.
        image_encoder: folder of the adapter's image encoder, or None.
        loras: in the order in which they are fused.
    """

    id: str
    folder: Path
    adapter: Path | None
    image_encoder: Path | None
    loras: tuple[Lora, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the "model", "ip_adapter" and "lora" entries of engine.json, with the SHA-256 of every file."""
        names = ["model_index.json", "fastgen.json", "tokenizer", "scheduler", *PARTS]
        if self.adapter is not None:
            names.append("feature_extractor")
        files = hash_files(self.folder, [name for name in names if (self.folder / name).exists()])
        if self.image_encoder is not None:
            found = hash_files(self.image_encoder)
            files |= {f"image_encoder/{name}": sha for name, sha in found.items()}
        adapter = None
        if self.adapter is not None:
            adapter = {"name": self.adapter.name, "sha256": sha256_file(self.adapter)}
        loras = [lora.to_json() for lora in self.loras]
        return {"model": {"id": self.id, "files": files}, "ip_adapter": adapter, "lora": loras}

    def defaults(self) -> dict[str, Any]:
        """Return generation settings: fastgen.json over DEFAULTS, and the size in pixels the model was trained at.

        Raises:
            ModelError: fastgen.json has unknown entries, or there is no usable size.
        """
        path = self.folder / "fastgen.json"
        file = _read_json(path) if path.is_file() else {}
        own = _check_object(file.get("defaults", {}), path)
        unknown = sorted((file.keys() - {"defaults"}) | (own.keys() - DEFAULT_KEYS))
        if unknown:
            form = f'{{"defaults": {{{", ".join(sorted(DEFAULT_KEYS))}}}}}'
            raise ModelError(f"{path} has unknown entries: {', '.join(unknown)}; its form is {form}")
        unet, vae = (_read_json(self.folder / name / "config.json") for name in ("unet", "vae"))
        step = 2 ** (len(vae.get("block_out_channels", [])) - 1)
        found = {**DEFAULTS, "size": unet.get("sample_size", 0) * step, **own}
        if not isinstance(found["size"], int) or found["size"] < 1:
            raise ModelError(f"{self.folder} does not say for which image size it was made; write it into {path.name}")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A loaded model: float32 modules on the CPU, LoRAs fused.

    Attributes:
        modules: component name -> module with exactly that component's inputs (see `components`).
        tokenizer: transformers.CLIPTokenizer.
        feature_extractor: transformers.CLIPImageProcessor, None without an adapter.
        scheduler_config: of the model's own scheduler, with `_class_name`.
        uncond_image_embeds: tokens of "no image", (1, T, D); zeros without an adapter.
    """

    modules: dict[str, Any]
    tokenizer: Any
    feature_extractor: Any
    scheduler_config: dict[str, Any]
    uncond_image_embeds: Tensor


def find_sources(model: str | Path, *, ip_adapter: str | Path | None = None, loras: Sequence[Lora] = ()) -> Sources:
    """Find a model's files and check that every part is there and of a kind that engines are made from.

    Args:
        model: an embedded model's name, a folder in diffusers layout, or a hub id.
        ip_adapter: a base IP-Adapter file; None takes the only file in the folder's `ip_adapter/`, if there is one.
        loras: to fuse into UNet and text encoder, in order.

    Raises:
        ModelError: something is missing or of another kind; the message names it.
    """
    folder = _find_folder(model)
    index = _read_json(folder / "model_index.json")
    for name, needed in PARTS.items():
        got = (index.get(name) or [None, None])[1]
        if got != needed:
            raise ModelError(f"{folder}: {name} is a {got}, engines are made from {needed} (Stable Diffusion 1.x/2.x)")
    for name in (*PARTS, "tokenizer", "scheduler"):
        if not (folder / name).is_dir():
            raise ModelError(f"{folder} has no folder {name}/; a model is a folder in diffusers layout")
    adapter = _find_adapter(folder, ip_adapter)
    encoder = _find_image_encoder(folder, adapter) if adapter is not None else None
    name = folder.resolve().name if Path(model).is_dir() else str(model)
    return Sources(id=name, folder=folder, adapter=adapter, image_encoder=encoder, loras=tuple(loras))


def load_model(sources: Sources) -> Model:
    """Load a model and fuse its LoRAs.

    Raises:
        ModelError: a part cannot be loaded, or parts do not fit each other.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

    from fastgen.engine.adapters import ConditionedUNet
    from fastgen.engine.components import make_modules

    folder = sources.folder
    unet = load_part(UNet2DConditionModel, folder / "unet").float()
    text_encoder = load_part(CLIPTextModel, folder / "text_encoder").float()
    vae = load_part(AutoencoderKL, folder / "vae").float()
    if vae.config.get("shift_factor"):
        raise ModelError(f"{folder / 'vae'}: a VAE with a shift_factor is not supported")
    fuse_loras(sources.loras, unet=unet, text_encoder=text_encoder)
    encoder = extractor = None
    if sources.adapter is None:
        unet = ConditionedUNet(unet)
        tokens = torch.zeros(1, unet.num_tokens, unet.token_dim)
    else:
        unet = ConditionedUNet.from_state_dict(unet, sources.adapter)
        encoder = load_part(CLIPVisionModelWithProjection, sources.image_encoder).float()
        extractor = _load_extractor(folder, CLIPImageProcessor, encoder.config.image_size)
        if encoder.config.projection_dim != unet.clip_dim:
            raise ModelError(
                f"IP-Adapter {sources.adapter.name} needs image embeddings of width {unet.clip_dim}, the image encoder "
                f"{sources.image_encoder} has {encoder.config.projection_dim}; use the encoder made for this adapter"
            )
        with torch.no_grad():
            tokens = unet.project(torch.zeros(1, encoder.config.projection_dim))
    return Model(
        modules=make_modules(unet=unet, text_encoder=text_encoder, vae=vae, image_encoder=encoder),
        tokenizer=load_part(CLIPTokenizer, folder / "tokenizer"),
        feature_extractor=extractor,
        scheduler_config=_load_scheduler(folder / "scheduler"),
        uncond_image_embeds=tokens,
    )


def load_part(kind: Any, folder: Path | None) -> Any:
    """Load one part with its class's `from_pretrained`, never from the network.

    Raises:
        ModelError: it cannot be loaded.
    """
    try:
        return kind.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the libraries raise many unrelated types
        raise ModelError(f"{folder} cannot be loaded as {kind.__name__}: {error}") from error


def _find_folder(model: str | Path) -> Path:
    """The folder of an embedded name, a folder or a hub id (downloaded through diffusers)."""
    embedded = sorted(p.name for p in EMBEDDED.glob("*") if (p / "model_index.json").is_file())
    if str(model) in embedded:
        return EMBEDDED / str(model)
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise ModelError(f"{folder} has no model_index.json; a model is a folder in diffusers layout")
        return folder
    reason = "it is no folder and not of the form owner/name"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(model)):
        from diffusers import StableDiffusionPipeline

        try:
            return Path(StableDiffusionPipeline.download(str(model), safety_checker=None))
        except Exception as error:  # hub and network libraries raise many unrelated types
            reason = f"it is no folder, and the hub says: {error}"
    raise ModelError(
        f"model {str(model)!r} was not found: {reason}. Give a folder in diffusers layout, a hub id, "
        f"or one of the embedded models: {', '.join(embedded) or 'none'}"
    )


def _find_adapter(folder: Path, ip_adapter: str | Path | None) -> Path | None:
    """The adapter file to use, or None when the model has none and none was named."""
    if ip_adapter is not None:
        for path in (Path(ip_adapter), folder / "ip_adapter" / ip_adapter):
            if path.is_file():
                return path
        raise ModelError(f"IP-Adapter {ip_adapter} does not exist; give a .safetensors or .bin file")
    found = sorted(p for p in (folder / "ip_adapter").glob("*") if p.suffix in (".safetensors", ".bin"))
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        raise ModelError(f"{folder} has several IP-Adapters; choose one with --ip-adapter: {names}")
    return found[0] if found else None


def _find_image_encoder(folder: Path, adapter: Path) -> Path:
    """The model's image encoder, or the one beside the adapter (as the published adapters have it)."""
    places = (adapter.parent / "image_encoder", folder / "image_encoder")
    for path in places:
        if path.is_dir():
            return path
    looked = " and ".join(str(path) for path in places)
    raise ModelError(f"IP-Adapter {adapter.name} needs an image encoder; looked for the folders {looked}")


def _load_extractor(folder: Path, kind: Any, image_size: int) -> Any:
    """The model's image preprocessing when it makes the encoder's size, else CLIP's own at that size."""
    if (folder / "feature_extractor").is_dir():
        extractor = load_part(kind, folder / "feature_extractor")
        if extractor.crop_size == {"height": image_size, "width": image_size}:
            return extractor
    return kind(size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size})


def _load_scheduler(folder: Path) -> dict[str, Any]:
    """The model's scheduler config with the two corrections that diffusers' pipelines make to old ones.

    Everything else stays as written: a value the file leaves out is the default of whichever scheduler a row asks for.
    """
    import diffusers

    config = _read_json(folder / "scheduler_config.json")
    kind = getattr(diffusers, config.get("_class_name", ""), None)
    if kind is None:
        raise ModelError(f"{folder}: diffusers has no scheduler {config.get('_class_name')!r}")
    full = kind.from_config(config).config
    if full.get("steps_offset", 1) != 1:
        config["steps_offset"] = 1
    if full.get("clip_sample", False):
        config["clip_sample"] = False
    return config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        obj = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}); the model folder is incomplete") from error
    return _check_object(obj, path)


def _check_object(obj: Any, path: Path) -> dict[str, Any]:
    if not isinstance(obj, dict):
        raise ModelError(f"{path}: got a {type(obj).__name__} where a JSON object is needed")
    return obj
