"""The networks that a classifier starts from, each with its own preprocessing and its default recipe.

`load_backbone` is the one place where a name becomes a network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastgen.errors import FastgenError, ModelError
from fastgen.train.clip_model import load_open_clip, load_transformers_clip
from fastgen.train.recipe import Recipe
from fastgen.train.recipes import DALDA, MINI_CLIP, MINI_RESNET
from fastgen.weights_hash import weights_sha256

MINI = Path(__file__).parent.parent / "models" / "mini"

HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True)
class Source:
    """What a backbone's name stands for.

    Attributes:
        library: "timm", "open_clip" or "transformers".
        model: the library's name of the architecture; timm's with the tag of its weights; a hub id of transformers.
        pretrained: open_clip's name of the weights.
        folder: of embedded weights.
    """

    library: str
    model: str
    pretrained: str | None = None
    folder: Path | None = None


NAMES = ("mini-resnet", "mini-clip", "resnet50", "resnet50-v1", "mae-vit-b16", "clip-vit-b16")
ALLOWED = f"one of {', '.join(NAMES)}, timm/<model.tag>, open_clip/<model>:<pretrained>, "\
    "transformers/<owner>/<CLIP model>, or NAME=PATH"


def _source(name: str) -> Source:
    known = {
        "mini-resnet": Source("timm", "", folder=MINI / "resnet"),
        "mini-clip": Source("open_clip", "", folder=MINI / "clip"),
        "resnet50": Source("timm", "resnet50.tv2_in1k"),
        "resnet50-v1": Source("timm", "resnet50.tv_in1k"),
        "mae-vit-b16": Source("timm", "vit_base_patch16_224.mae"),
        "clip-vit-b16": Source("open_clip", "ViT-B-16-quickgelu", "openai"),
    }
    if name in known:
        return known[name]
    library, _, model = name.partition("/")
    if library in ("timm", "transformers") and model:
        return Source(library, model)
    if library == "open_clip" and model:
        if model.startswith("hf-hub:"):  # the hub's own names say which weights
            return Source("open_clip", model, "")
        architecture, _, pretrained = model.partition(":")
        return Source("open_clip", architecture, pretrained or None)
    raise FastgenError(f"backbone is {name!r}; it must be {ALLOWED}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """A pretrained network that turns images into features.

    Attributes:
        name: as given, without the path.
        dim: length D of a feature vector.
        size: side of its square input in pixels.
        mean: per channel, subtracted from pixels in 0..1.
        std: per channel, divides them.
        sha256: hash of the weights.
        recipe: how its head is trained by default.
        encode: normalised images float32 (B, 3, size, size) on `device` -> features float32 (B, D); no
            gradient, BatchNorm with its stored statistics.
        encode_text: prompts -> un-normalised text embeddings float32 (C, D); None for a network without text.
        device: where `encode` runs.
        kind: "clip", "cnn" (with BatchNorm) or "vit" (without), which decides what a named recipe says.
        model: the network itself, frozen; a timm model without classifier, or `ClipModel.model`.
        tokenize: prompts -> token ids int64 (C, T); None for a network without text.
    """

    name: str
    dim: int
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    sha256: str
    recipe: Recipe
    encode: Callable[[Tensor], Tensor]
    encode_text: Callable[[Sequence[str]], Tensor] | None = None
    device: str = "cpu"
    kind: str = "cnn"
    model: nn.Module | None = None
    tokenize: Callable[[Sequence[str]], Tensor] | None = None


def load_backbone(backbone: str, *, device: str | None = None) -> Backbone:
    """Loads a backbone.

    Args:
        backbone: `mini-resnet`, `mini-clip` (embedded), `resnet50` (torchvision's V2 weights), `resnet50-v1`,
            `mae-vit-b16`, `clip-vit-b16`, any other timm model as `timm/<model.tag>` or open_clip model as
            `open_clip/<model>:<pretrained>` or `open_clip/hf-hub:<owner>/<model>`, or a CLIPModel of transformers as
            `transformers/<owner>/<model>`. `NAME=PATH` gives the weights' place: for timm a folder (config.json,
            model.safetensors) or a file of weights, for open_clip a folder (open_clip_config.json) or a file, for
            transformers a folder. Without a path the mini networks come from this package and the others from their
            hub (or its cache on this machine).
        device: torch device; None takes CUDA where there is one.

    Returns:
        the backbone.

    Raises:
        FastgenError: if the name is unknown.
        ModelError: if weights are not at hand, or do not fit.
    """
    name, _, path = backbone.partition("=")
    source = _source(name)
    weights = _weights(name, source, path)
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    load = _load_timm if source.library == "timm" else _load_clip
    try:
        return load(name, source, weights, where)
    except FastgenError:
        raise
    except Exception as error:  # hubs, network and tensor files fail with a dozen unrelated types
        raise ModelError(_missing(name, weights, error)) from error


def with_norm(backbone: Backbone, norm: str) -> Backbone:
    """The backbone normalising as `norm` says: "own", or "half" for mean = std = 0.5 as in DALDA's code."""
    return replace(backbone, mean=HALF, std=HALF) if norm == "half" else backbone


def _weights(name: str, source: Source, path: str) -> Path | None:
    """The weights' place, checked; None stands for the hub."""
    weights = Path(path) if path else source.folder
    if weights is not None and not weights.exists():
        raise ModelError(
            f"backbone {name}: no weights at {weights}. Give their place as --backbone {name}=PATH"
            + ("; the package's own are part of a complete install." if source.folder else ".")
        )
    return weights


def _missing(name: str, weights: Path | None, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    if weights is None:
        return (
            f"backbone {name}: its weights are not on this machine and could not be downloaded ({reason}). "
            f"Run the same command once where there is a network, or give a file with --backbone {name}=PATH."
        )
    return f"backbone {name}: the weights at {weights} cannot be loaded ({reason})"


def _load_timm(name: str, source: Source, weights: Path | None, device: str) -> Backbone:
    import timm

    model: Any
    if weights is not None and weights.is_dir():
        model = timm.create_model(f"local-dir:{weights.resolve()}", pretrained=True, num_classes=0)
    elif weights is not None:
        overlay = {"file": str(weights)}
        model = timm.create_model(source.model, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    else:
        model = timm.create_model(source.model, pretrained=True, num_classes=0)
    if name == "mae-vit-b16":
        average_pool(model)
    model.eval().requires_grad_(False).to(device)
    cfg = model.pretrained_cfg

    @torch.inference_mode()
    def encode(pixels: Tensor) -> Tensor:
        return model(pixels).float()

    kind = "cnn" if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()) else "vit"
    return Backbone(
        name=name,
        dim=int(model.num_features),
        size=int(cfg["input_size"][-1]),
        mean=tuple(cfg["mean"]),
        std=tuple(cfg["std"]),
        sha256=weights_sha256(model),
        recipe=MINI_RESNET if name == "mini-resnet" else DALDA[kind],
        encode=encode,
        device=device,
        kind=kind,
        model=model,
    )


def average_pool(model: Any) -> None:
    """Makes a timm vision transformer pool as MAE fine-tunes it: mean of the patches, then a fresh LayerNorm.

    Raises:
        ModelError: if it is no vision transformer.
    """
    if not (hasattr(model, "fc_norm") and hasattr(model, "norm") and hasattr(model, "global_pool")):
        raise ModelError(f"a {type(model).__name__} has no tokens to average; mae-vit-b16 needs a vision transformer")
    model.global_pool = "avg"
    model.fc_norm = nn.LayerNorm(model.num_features, eps=1e-6)
    model.norm = nn.Identity()


def _load_clip(name: str, source: Source, weights: Path | None, device: str) -> Backbone:
    if source.library == "transformers":
        loaded = load_transformers_clip(name, source.model, weights)
    else:
        loaded = load_open_clip(name, source.model, source.pretrained, weights)
    model, tokenize = loaded.model, loaded.tokenize
    model.eval().requires_grad_(False).to(device)

    @torch.inference_mode()
    def encode(pixels: Tensor) -> Tensor:
        return model.encode_image(pixels).float()

    @torch.inference_mode()
    def encode_text(prompts: Sequence[str]) -> Tensor:
        return model.encode_text(tokenize(prompts).to(device)).float().cpu()

    return Backbone(
        name=name,
        dim=int(encode_text(["a photo"]).shape[1]),
        size=loaded.size,
        mean=loaded.mean,
        std=loaded.std,
        sha256=weights_sha256(model),
        recipe=MINI_CLIP if name == "mini-clip" else DALDA["clip"],
        encode=encode,
        encode_text=encode_text,
        device=device,
        kind="clip",
        model=model,
        tokenize=tokenize,
    )
