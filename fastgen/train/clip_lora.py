"""LoRA in a CLIP: low-rank updates of the query and value projections of every block, in both towers."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastgen.errors import ModelError
from fastgen.train.recipe import Recipe

TARGETS = r".*\.(attn|self_attn)\.(q_proj|v_proj)"
"""Of open_clip with split attention, and of transformers, whose projections are apart."""


class SplitAttention(nn.Module):
    """`nn.MultiheadAttention` with a Linear each for query, key and value; computes the same.

    torch keeps the three projections as one tensor, where an update of query and value alone has no layer to
    sit on; peft's own layer for it updates all three and the output.

    Args:
        fused: the attention whose weights it takes over.
    """

    def __init__(self, fused: nn.MultiheadAttention) -> None:
        super().__init__()
        if not fused._qkv_same_embed_dim or fused.bias_k is not None or fused.add_zero_attn:
            raise ModelError("LoRA needs attention whose query, key and value have one width, without extra bias")
        self.num_heads, self.batch_first, self.dropout = fused.num_heads, fused.batch_first, fused.dropout
        dim, bias = fused.embed_dim, fused.in_proj_bias is not None
        for place, name in enumerate(("q_proj", "k_proj", "v_proj")):
            layer = nn.Linear(dim, dim, bias=bias)
            part = slice(place * dim, (place + 1) * dim)
            layer.weight = nn.Parameter(fused.in_proj_weight[part].detach().clone(), requires_grad=False)
            if bias:
                layer.bias = nn.Parameter(fused.in_proj_bias[part].detach().clone(), requires_grad=False)
            self.add_module(name, layer)
        self.out_proj = fused.out_proj

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Attends; inputs (B, L, D) with `batch_first`, else (L, B, D); a True in a boolean mask hides."""
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        batch, length, dim = q.shape
        q, k, v = (x.view(batch, -1, self.num_heads, dim // self.num_heads).transpose(1, 2) for x in (q, k, v))
        mask = ~attn_mask if attn_mask is not None and attn_mask.dtype == torch.bool else attn_mask
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        out = self.out_proj(mixed.transpose(1, 2).reshape(batch, length, dim))
        return (out if self.batch_first else out.transpose(0, 1)), None


def add_lora(model: nn.Module, recipe: Recipe) -> None:
    """Freezes a CLIP and adds LoRA to it, in place; the update is zero at first.

    Args:
        model: `ClipModel.model`; towers of open_clip must be transformers of its own kind.
        recipe: rank, alpha and dropout.

    Raises:
        ModelError: if one of its towers has no attention of that kind.
    """
    from peft import LoraConfig, inject_adapter_in_model

    model.requires_grad_(False)
    towers = _replace(model)
    if not all(towers.values()):
        missing = next(name for name, found in towers.items() if not found)
        raise ModelError(
            f"LoRA goes into the attention of both towers of a CLIP, but the {missing} tower of this one has no block "
            "of open_clip's own kind or of transformers'; choose a ViT, such as clip-vit-b16, or --tune full"
        )
    config = LoraConfig(
        r=recipe.lora_rank, lora_alpha=recipe.lora_alpha, lora_dropout=recipe.lora_dropout, target_modules=TARGETS
    )
    inject_adapter_in_model(config, model)


def _replace(model: nn.Module) -> dict[str, int]:
    """Splits every attention that is not apart already; returns how many the two towers have."""
    found = {"image": 0, "text": 0}
    for path, module in list(model.named_modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.MultiheadAttention) and name == "attn":
                setattr(module, name, SplitAttention(child))
            elif name != "self_attn" or not isinstance(getattr(child, "q_proj", None), nn.Linear):
                continue
            found["image" if path.startswith("visual") else "text"] += 1
    return found


def merge_lora(model: Any) -> None:
    """Adds the updates to the weights and puts torch's fused attention back, in place.

    An open_clip model is an ordinary one again, with the state dict of one.
    """
    from peft.tuners.lora import LoraLayer

    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LoraLayer):
                child.merge()
                setattr(module, name, child.get_base_layer())
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, SplitAttention):
                setattr(module, name, _fused(child))


def _fused(split: SplitAttention) -> nn.MultiheadAttention:
    layers: list[Any] = [split.q_proj, split.k_proj, split.v_proj]
    fused = nn.MultiheadAttention(
        layers[0].in_features, split.num_heads, split.dropout, bias=layers[0].bias is not None,
        batch_first=split.batch_first,
    )  # fmt: skip
    with torch.no_grad():
        fused.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        if fused.in_proj_bias is not None:
            fused.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
    fused.out_proj = split.out_proj
    return fused.to(layers[0].weight.device).train(split.training)
