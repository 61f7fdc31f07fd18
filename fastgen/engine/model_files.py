"""Where a model's files are: an embedded name, a folder, a hub id or a single-file checkpoint; nothing is loaded here.

The embedded model is a folder in diffusers layout too: `mini` is looked up in fastgen/models, then all is the same.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastgen.engine.checkpoint import SUFFIXES, config_source
from fastgen.engine.embeddings import Embedding
from fastgen.engine.lora import Lora
from fastgen.engine.spec import hash_files
from fastgen.engine.weights import part_files, weight_files
from fastgen.errors import ModelError
from fastgen.files import sha256_file

EMBEDDED = Path(__file__).resolve().parent.parent / "models"

PARTS = {"text_encoder": "CLIPTextModel", "unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
"""Folder of a part -> the one class of it that engines are made from."""

DEFAULTS = {"steps": 30, "guidance_scale": 7.5}
"""Generation settings of a model that has no fastgen.json."""

DEFAULT_KEYS = {"steps", "guidance_scale", "scheduler", "size"}

CONFIG_FILES = ["*.json", "*.txt", "*/*.json", "*/*.txt"]
"""What is downloaded of a hub model that only lends its configs and tokenizer to a single-file checkpoint."""

VAE_FILES = ["config.json", "diffusion_pytorch_model*.safetensors", "vae/config.json", "vae/*.safetensors"]
OLD_VAE_FILES = ["diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.bin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The files a model is made of; nothing is loaded yet.

    Attributes:
        id: embedded name, folder name, hub id, or a checkpoint's name without suffix.
        folder: in diffusers layout; of a checkpoint, the one its configs and tokenizer come from.
        checkpoint: single file with the weights of all parts, or None.
        vae: folder of another VAE than the model's own, or None.
        adapter: IP-Adapter file, or None.
        image_encoder: folder of the adapter's image encoder, or None.
        loras: in the order in which they are fused.
        embeddings: in the order in which their words are added.
    """

    id: str
    folder: Path
    checkpoint: Path | None
    vae: Path | None
    adapter: Path | None
    image_encoder: Path | None
    loras: tuple[Lora, ...]
    embeddings: tuple[Embedding, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the entries of engine.json that say what a build starts from, with the SHA-256 of every file."""
        adapter = None
        if self.adapter is not None:
            adapter = {"name": self.adapter.name, "sha256": sha256_file(self.adapter)}
        return {
            "model": {"id": self.id, "files": self._hashes()},
            "ip_adapter": adapter,
            "lora": [lora.to_json() for lora in self.loras],
            "embeddings": [embedding.to_json() for embedding in self.embeddings],
        }

    def defaults(self) -> dict[str, Any]:
        """Return generation settings: fastgen.json over DEFAULTS, and the size in pixels the model was trained at.

        Raises:
            ModelError: fastgen.json has unknown entries, or there is no usable size.
        """
        path = self.folder / "fastgen.json"
        file = read_json(path) if path.is_file() else {}
        own = _check_object(file.get("defaults", {}), path)
        unknown = sorted((file.keys() - {"defaults"}) | (own.keys() - DEFAULT_KEYS))
        if unknown:
            form = f'{{"defaults": {{{", ".join(sorted(DEFAULT_KEYS))}}}}}'
            raise ModelError(f"{path} has unknown entries: {', '.join(unknown)}; its form is {form}")
        unet = read_json(self.folder / "unet" / "config.json")
        vae = read_json((self.vae or self.folder / "vae") / "config.json")
        step = 2 ** (len(vae.get("block_out_channels", [])) - 1)
        found = {**DEFAULTS, "size": unet.get("sample_size", 0) * step, **own}
        if not isinstance(found["size"], int) or found["size"] < 1:
            raise ModelError(f"{self.folder} does not say for which image size it was made; write it into {path.name}")
        return found

    def _hashes(self) -> dict[str, str]:
        """{path as in a model folder: sha256} of every file that is read, wherever it lies."""
        names = ["model_index.json", "fastgen.json", "tokenizer", "scheduler"]
        if self.adapter is not None:
            names.append("feature_extractor")
        files = hash_files(self.folder, [name for name in names if (self.folder / name).exists()])
        parts = {part: self.folder / part for part in PARTS}
        parts |= {"vae": self.vae} if self.vae is not None else {}
        parts |= {"image_encoder": self.image_encoder} if self.image_encoder is not None else {}
        for part, folder in parts.items():
            in_checkpoint = self.checkpoint is not None and part in PARTS and not (part == "vae" and self.vae)
            found = hash_files(folder, ["config.json"] if in_checkpoint else part_files(folder))
            files |= {f"{part}/{name}": sha for name, sha in found.items()}
        if self.checkpoint is not None:
            files[self.checkpoint.name] = sha256_file(self.checkpoint)
        return files


def find_sources(
    model: str | Path,
    *,
    config: str | Path | None = None,
    vae: str | Path | None = None,
    ip_adapter: str | Path | None = None,
    loras: Sequence[Lora] = (),
    embeddings: Sequence[Embedding] = (),
) -> Sources:
    """Find a model's files and check that every part is there and of a kind that engines are made from.

    Args:
        model: an embedded model's name, a folder in diffusers layout, a hub id, or a single-file checkpoint.
        config: for a checkpoint: folder in diffusers layout or hub id that its configs and tokenizer come from;
            None lets diffusers choose one from the hub.
        vae: folder of an AutoencoderKL, folder of a model with `vae/`, or hub id of either; None: the model's own.
        ip_adapter: an IP-Adapter file; None takes the only file in the folder's `ip_adapter/`, if there is one.
        loras: to fuse into UNet and text encoder, in order.
        embeddings: words to add to the text encoder.

    Raises:
        ModelError: something is missing or of another kind; the message names it.
    """
    checkpoint = _find_checkpoint(model)
    if checkpoint is not None:
        folder = _find_folder(config or config_source(checkpoint), download=_download_configs, what="--config")
    elif config is not None:
        raise ModelError(f"--config is for single-file checkpoints ({' or '.join(SUFFIXES)}); {model} is none")
    else:
        folder = _find_folder(model, download=_download, what="model")
    _check_parts(folder, weights=checkpoint is None, own_vae=vae is None)
    adapter = _find_adapter(folder, ip_adapter)
    return Sources(
        id=checkpoint.stem if checkpoint else folder.resolve().name if Path(model).is_dir() else str(model),
        folder=folder,
        checkpoint=checkpoint,
        vae=None if vae is None else _find_vae(vae),
        adapter=adapter,
        image_encoder=_find_image_encoder(folder, adapter) if adapter is not None else None,
        loras=tuple(loras),
        embeddings=tuple(embeddings),
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a model folder.

    Raises:
        ModelError: there is none.
    """
    try:
        obj = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}); the model folder is incomplete") from error
    return _check_object(obj, path)


def _check_object(obj: Any, path: Path) -> dict[str, Any]:
    if not isinstance(obj, dict):
        raise ModelError(f"{path}: got a {type(obj).__name__} where a JSON object is needed")
    return obj


def _check_parts(folder: Path, *, weights: bool, own_vae: bool) -> None:
    """Refuse a model folder in which a part is missing, of another kind, or without the weights it must have."""
    index = read_json(folder / "model_index.json")
    for name, needed in PARTS.items():
        got = (index.get(name) or [None, None])[1]
        if got != needed:
            raise ModelError(f"{folder}: {name} is a {got}, engines are made from {needed} (Stable Diffusion 1.x/2.x)")
    for name in (*PARTS, "tokenizer", "scheduler"):
        if not (folder / name).is_dir() and (own_vae or name != "vae"):
            raise ModelError(f"{folder} has no folder {name}/; a model is a folder in diffusers layout")
        if weights and name in PARTS and (own_vae or name != "vae") and not weight_files(folder / name):
            raise ModelError(f"{folder / name} has no weights; needed is a .safetensors (also .fp16) or .bin file")


def _find_checkpoint(model: str | Path) -> Path | None:
    """The path, if it is a single file."""
    path = Path(model)
    if not path.is_file():
        return None
    if path.suffix not in SUFFIXES:
        raise ModelError(f"{path} is no model: a single file must be a checkpoint, {' or '.join(SUFFIXES)}")
    return path


def _find_folder(model: str | Path, *, download: Callable[[str], Path], what: str) -> Path:
    """The folder of an embedded name, a folder or a hub id."""
    embedded = sorted(p.name for p in EMBEDDED.glob("*") if (p / "model_index.json").is_file())
    if str(model) in embedded:
        return EMBEDDED / str(model)
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise ModelError(f"{folder} has no model_index.json; a model is a folder in diffusers layout")
        return folder
    found = _from_hub(model, download)
    if isinstance(found, Path):
        return found
    raise ModelError(
        f"{what} {str(model)!r} was not found: {found}. Give a folder in diffusers layout, a hub id, "
        f"or one of the embedded models: {', '.join(embedded) or 'none'}"
    )


def _from_hub(name: str | Path, download: Callable[[str], Path]) -> Path | str:
    """The local folder of a hub id, or the reason why there is none."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        return "it is no folder and not of the form owner/name"
    try:
        return download(str(name))
    except Exception as error:  # hub and network libraries raise many unrelated types
        return f"it is no folder, and the hub says: {error}"


def _download(name: str) -> Path:
    """The folder of a hub model; where parts have weights in half precision only, those."""
    from diffusers import StableDiffusionPipeline

    folder = Path(StableDiffusionPipeline.download(name, safety_checker=None))
    if not all(weight_files(folder / part) for part in PARTS):
        folder = Path(StableDiffusionPipeline.download(name, safety_checker=None, variant="fp16"))
    return folder


def _download_configs(name: str) -> Path:
    """The folder of a hub model, without weights."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=CONFIG_FILES))


def _download_vae(name: str) -> Path:
    """The folder of a VAE's own repository, or of a model's, with the VAE only."""
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(name, allow_patterns=VAE_FILES))
    if not weight_files(folder) and not weight_files(folder / "vae"):
        folder = Path(snapshot_download(name, allow_patterns=[*VAE_FILES, *OLD_VAE_FILES]))
    return folder


def _find_vae(vae: str | Path) -> Path:
    """The folder with the config.json and weights of an AutoencoderKL."""
    found = Path(vae) if Path(vae).is_dir() else _from_hub(vae, _download_vae)
    if isinstance(found, str):
        raise ModelError(f"VAE {str(vae)!r} was not found: {found}. Give a folder with an AutoencoderKL, or a hub id")
    for folder in (found / "vae", found):
        if (folder / "config.json").is_file() and weight_files(folder):
            kind = read_json(folder / "config.json").get("_class_name")
            if kind != PARTS["vae"]:
                raise ModelError(f"VAE {folder} is a {kind}, engines are made from {PARTS['vae']}")
            return folder
    raise ModelError(f"VAE {vae} has no config.json with weights beside it, neither there nor in vae/")


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
    """The image encoder beside the adapter (as the published adapters have it), or the model's own."""
    places = (adapter.parent / "image_encoder", folder / "image_encoder")
    for path in places:
        if path.is_dir():
            return path
    looked = " and ".join(str(path) for path in places)
    raise ModelError(f"IP-Adapter {adapter.name} needs an image encoder; looked for the folders {looked}")
