"""The network that a trial trains: a backbone with its head, and which parts of it learn."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastgen.errors import FastgenError
from fastgen.train.backbone import Backbone
from fastgen.train.clip_lora import add_lora
from fastgen.train.head import class_prompts, new_head
from fastgen.train.recipe import Recipe


class CosineHead(nn.Module):
    """CLIP's classifier with a learnable vector per class: logit scale times cosine.

    Args:
        weight: vector of every class, float32 (C, D).
        scale: logit scale (its exponential already taken).
    """

    def __init__(self, weight: Tensor, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(functional.normalize(weight, dim=-1))
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) -> logits (B, C)."""
        cosines = functional.normalize(features, dim=-1) @ functional.normalize(self.weight, dim=-1).T
        return self.scale * cosines


class ImageClassifier(nn.Module):
    """An image encoder and a head on its features.

    Args:
        encoder: images (B, 3, S, S) -> features (B, D).
        head: features -> logits (B, C).
        frozen: whether the encoder runs without gradient.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module, *, frozen: bool) -> None:
        super().__init__()
        self.encoder, self.head, self.frozen = encoder, head, frozen
        encoder.requires_grad_(not frozen)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) -> logits (B, C)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.encoder(pixels)
        return self.head(features)


class ClipClassifier(nn.Module):
    """A CLIP whose two towers both learn: logit scale times cosine of image and class prompt.

    Args:
        clip: `ClipModel.model`.
        tokens: of the class prompts, int64 (C, T).
    """

    def __init__(self, clip: Any, tokens: Tensor) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("tokens", tokens, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) -> logits (B, C)."""
        image = self.clip.encode_image(pixels, normalize=True)
        text = self.clip.encode_text(self.tokens, normalize=True)
        return self.clip.logit_scale.exp() * image @ text.T


def new_network(backbone: Backbone, classes: Sequence[str], recipe: Recipe, *, seed: int) -> nn.Module:
    """The network as it is before training; the backbone itself is left as it is.

    Args:
        backbone: where it starts from.
        classes: names, in label order.
        recipe: tune, head, drop_path and LoRA's settings.
        seed: of the head's, LoRA's and the fresh layers' initialisation.

    Raises:
        FastgenError: if this backbone cannot be tuned like that.
    """
    head = check_head(backbone, recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = copy.deepcopy(backbone.model)
        if recipe.tune != "linear" and head == "cosine":
            assert backbone.tokenize is not None
            if recipe.tune == "lora":
                add_lora(model, recipe)
            else:
                model.requires_grad_(True)
                model.logit_scale.requires_grad_(False)
            return ClipClassifier(model, backbone.tokenize(class_prompts(classes)))
        encoder = model.visual if backbone.kind == "clip" else model
        if recipe.drop_path:
            set_drop_path(encoder, recipe.drop_path)
    return ImageClassifier(
        encoder, make_head(backbone, classes, recipe, seed=seed), frozen=recipe.tune == "linear"
    )


def check_head(backbone: Backbone, recipe: Recipe) -> str:
    """What "auto" stands for, once it is sure that backbone, tune and head go together.

    Raises:
        FastgenError: if they do not.
    """
    has_text = backbone.encode_text is not None
    head = recipe.head
    if head == "auto":
        head = ("cosine" if recipe.tune == "lora" else "text") if has_text else "linear"
    if not has_text and (head != "linear" or recipe.tune == "lora"):
        what = "tune lora" if recipe.tune == "lora" else f"head {head}"
        raise FastgenError(f"{what} needs a CLIP; {backbone.name} has no text tower. Use tune full, head linear")
    if recipe.tune == "lora" and head != "cosine":
        raise FastgenError(f"tune lora trains both towers of a CLIP and needs head cosine, got {head}")
    return head


def make_head(backbone: Backbone, classes: Sequence[str], recipe: Recipe, *, seed: int) -> nn.Module:
    """The head alone, as it is before training."""
    head = check_head(backbone, recipe)
    if head == "linear" or backbone.encode_text is None:
        return new_head(backbone.dim, len(classes), seed=seed)
    text = backbone.encode_text(class_prompts(classes))
    if head == "text":
        return new_head(backbone.dim, len(classes), seed=seed, text=text)
    model: Any = backbone.model
    return CosineHead(text, float(model.logit_scale.exp()))


def set_drop_path(model: Any, rate: float) -> None:
    """Gives the blocks of a timm vision transformer stochastic depth, from 0 to `rate` in equal steps.

    Raises:
        FastgenError: if it is no such transformer.
    """
    from timm.layers import DropPath

    blocks = list(getattr(model, "blocks", ()))
    if not blocks or not all(hasattr(block, "drop_path2") for block in blocks):
        raise FastgenError(f"drop_path needs a timm vision transformer, got {type(model).__name__}; use drop_path 0")
    for place, block in enumerate(blocks):
        share = rate * place / max(1, len(blocks) - 1)
        block.drop_path1 = DropPath(share) if share else nn.Identity()
        block.drop_path2 = DropPath(share) if share else nn.Identity()


def start_training(network: nn.Module, recipe: Recipe) -> None:
    """Puts every layer into the mode that it trains in; see `Recipe.bn`."""
    network.train()
    encoder = getattr(network, "encoder", None)
    if recipe.tune == "linear" and encoder is not None and recipe.bn == "frozen":
        encoder.eval()
    elif recipe.bn == "frozen":
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def learnt_state(network: nn.Module) -> dict[str, Tensor]:
    """What training changes: learnable parameters, and buffers such as BatchNorm's statistics; copied to the CPU."""
    learnable = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    buffers = {name for name, _ in network.named_buffers()}
    return {
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in network.state_dict().items()
        if name in learnable | buffers
    }


def load_learnt(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Puts back what `learnt_state` took."""
    _, unexpected = network.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
