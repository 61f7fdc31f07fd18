"""A CLIP to train on, of open_clip or of transformers; both behave as open_clip's do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastgen.errors import FastgenError, ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipModel:
    """A loaded CLIP and what its inputs must be like.

    Attributes:
        model: has `encode_image`, `encode_text` (both with `normalize`), `logit_scale` and the image tower `visual`.
        tokenize: prompts -> token ids int64 (C, T).
        size: side of the square images in pixels.
        mean: per channel, subtracted from pixels in 0..1.
        std: per channel, divides them.
    """

    model: Any
    tokenize: Callable[[Sequence[str]], Tensor]
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Tower(nn.Module):
    """One tower of transformers' CLIPModel with its projection.

    Args:
        model: its CLIPVisionModel's or CLIPTextModel's transformer.
        projection: of the pooled vector into the common space.
    """

    def __init__(self, model: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        self.model, self.projection = model, projection

    def forward(self, given: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) or token ids (B, T) -> features (B, D).

        Token ids need no mask: attention is causal, so that padding behind the last token changes nothing before it.
        """
        return self.projection(self.model(given).pooler_output)


class TransformersClip(nn.Module):
    """transformers' CLIPModel with open_clip's methods.

    Args:
        clip: the model, which is taken apart.
    """

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.visual = Tower(clip.vision_model, clip.visual_projection)
        self.text = Tower(clip.text_model, clip.text_projection)
        self.logit_scale = clip.logit_scale

    def encode_image(self, pixels: Tensor, normalize: bool = False) -> Tensor:
        """Normalised images (B, 3, S, S) -> features (B, D)."""
        features = self.visual(pixels)
        return functional.normalize(features, dim=-1) if normalize else features

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        """Token ids (B, T) -> features (B, D)."""
        features = self.text(tokens)
        return functional.normalize(features, dim=-1) if normalize else features


def load_open_clip(name: str, model: str, pretrained: str | None, weights: Path | None) -> ClipModel:
    """Loads a CLIP with open_clip.

    Args:
        name: of the backbone, for messages.
        model: open_clip's name of the architecture.
        pretrained: its name of the weights, "" where the architecture's name says which.
        weights: a folder (open_clip_config.json) or a file instead; None takes `pretrained`.

    Raises:
        FastgenError: there are neither weights nor a name of some.
    """
    import open_clip

    if weights is not None and weights.is_dir():
        architecture, which = f"local-dir:{weights.resolve()}", None
    else:
        architecture, which = model, str(weights) if weights else pretrained
        if which is None:
            raise FastgenError(f"backbone {name}: open_clip needs the weights' name, as in open_clip/ViT-B-16:openai")
    clip: Any = open_clip.create_model(architecture, pretrained=which or None)
    tokenizer = open_clip.get_tokenizer(architecture)
    cfg = open_clip.get_model_preprocess_cfg(clip)
    size = cfg["size"]
    return ClipModel(
        model=clip,
        tokenize=lambda prompts: tokenizer(list(prompts)),
        size=int(size if isinstance(size, int) else size[0]),
        mean=tuple(cfg["mean"]),
        std=tuple(cfg["std"]),
    )


def load_transformers_clip(name: str, model: str, folder: Path | None) -> ClipModel:
    """Loads a CLIPModel with transformers, in float32.

    Args:
        name: of the backbone, for messages.
        model: hub id.
        folder: local folder instead, with config.json, weights, tokenizer and preprocessor_config.json.

    Raises:
        ModelError: it is another kind of model, or weights are missing in it.
    """
    from transformers import AutoConfig, AutoTokenizer, CLIPImageProcessor, CLIPModel

    place = str(folder) if folder is not None else model
    config = AutoConfig.from_pretrained(place)
    if config.model_type != "clip":
        raise ModelError(f"backbone {name}: {place} is of type {config.model_type!r}; allowed: a CLIPModel ('clip')")
    clip, info = CLIPModel.from_pretrained(place, output_loading_info=True)
    if info["missing_keys"]:
        missing = f"{min(info['missing_keys'])} and {len(info['missing_keys']) - 1} more"
        raise ModelError(f"backbone {name}: {place} lacks the weights {missing}; give a folder with both towers")
    tokenizer = AutoTokenizer.from_pretrained(place)
    processor = CLIPImageProcessor.from_pretrained(place)
    length = config.text_config.max_position_embeddings

    def tokenize(prompts: Sequence[str]) -> Tensor:
        options = {"padding": True, "truncation": True, "max_length": length, "return_tensors": "pt"}
        return tokenizer(list(prompts), **options).input_ids.to(torch.int64)

    return ClipModel(
        model=TransformersClip(clip.float()),
        tokenize=tokenize,
        size=int(config.vision_config.image_size),
        mean=tuple(processor.image_mean),
        std=tuple(processor.image_std),
    )
