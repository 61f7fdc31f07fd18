"""Torch UNet with IP-Adapter attention in which lambda is data: one value per row of the batch.

diffusers keeps the image-prompt weight as a Python float on every attention processor, so a batch shares one
value and an export freezes it. Here it is a (B,) tensor. It multiplies the values of the image branch, which is
the same as weighting that branch's output (attention is linear in its values) and touches (B, T, C) numbers only.

    Z = Attn(Q, K_text, V_text) + Attn(Q, K_image, lambda * V_image);    out = to_out(Z)
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgen.engine.projection import ImageProjection, ImageResampler, read_projection
from fastgen.engine.weights import read_weights
from fastgen.errors import ModelError

DiffusersUNet = Any
"""diffusers.UNet2DConditionModel; Any, because diffusers' types cannot be checked."""

Attention = Any
"""diffusers' Attention layer: to_q, to_k, to_v, to_out, heads."""

State = Mapping[str, Tensor] | Mapping[str, Mapping[str, Tensor]]
"""Adapter weights: flat with dots, or nested as in `.bin` files."""


class ImageKeyValue(nn.Module):
    """The image branch's own key and value projections of one cross-attention layer (no bias)."""

    def __init__(self, token_dim: int, inner_dim: int) -> None:
        """Create (D -> inner) projections with fresh weights."""
        super().__init__()
        self.to_k_ip = nn.Linear(token_dim, inner_dim, bias=False)
        self.to_v_ip = nn.Linear(token_dim, inner_dim, bias=False)


class RowIPAttnProcessor:
    """Cross-attention with an image branch whose weight is one number per row.

    `encoder_hidden_states` is the triple (text (B, 77, D), image tokens (B, T, D), ip_scale (B,)): the blocks of
    a diffusers UNet hand it through untouched. The branch is always computed, so an exported graph keeps it.
    """

    def __init__(self, image: ImageKeyValue | None) -> None:
        """Keep the layer's image projections; None: no adapter, the image branch does not exist."""
        self.image = image

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: tuple[Tensor, Tensor, Tensor],
        **_: object,
    ) -> Tensor:
        """Attend to text and image tokens with one query; (B, L, C) in and out."""
        out = self.attend(attn, attn.to_q(hidden_states), *encoder_hidden_states)
        return attn.to_out[1](attn.to_out[0](out))

    def attend(self, attn: Attention, query: Tensor, text: Tensor, tokens: Tensor, ip_scale: Tensor) -> Tensor:
        """Z of the formula above; (B, L, C) in and out."""
        out = _attend(attn, query, attn.to_k(text), attn.to_v(text))
        if self.image is None:
            return out
        value = self.image.to_v_ip(tokens) * ip_scale.to(tokens.dtype)[:, None, None]
        return out + _attend(attn, query, self.image.to_k_ip(tokens), value)


def _attend(attn: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention as the layer has it; in float32 where the UNet's config says upcast_attention."""
    parts = [x.float() if attn.upcast_attention else x for x in (query, key, value)]
    return attention(*parts, heads=attn.heads).to(query.dtype)


def attention(query: Tensor, key: Tensor, value: Tensor, *, heads: int) -> Tensor:
    """Multi-head attention, (B, L, H*d) in and out."""
    parts = [x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (query, key, value)]
    return F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)


class ConditionedUNet(nn.Module):
    """A diffusers UNet plus (optionally) an IP-Adapter, with every condition an argument of `forward`.

    Takes the UNet over: its cross-attention processors are replaced. The adapter's weights live here, not in
    the UNet, so `unet.save_pretrained` writes a plain diffusers UNet and `adapter_state_dict` a plain adapter.
    """

    def __init__(self, unet: DiffusersUNet, *, projection: ImageProjection | ImageResampler | None = None) -> None:
        """Wrap `unet`.

        Args:
            unet: Stable Diffusion 1.x/2.x style UNet2DConditionModel.
            projection: makes the image tokens; None: no adapter (image inputs are ignored).

        Raises:
            ModelError: the UNet needs inputs this engine does not have (SDXL, class labels, ...).
        """
        super().__init__()
        layers = _cross_attention_layers(unet)
        self.unet = unet
        self.image_proj = projection
        self.num_tokens: int = 4 if projection is None else projection.num_tokens
        self.token_dim: int = unet.config.cross_attention_dim
        self.ip_adapter = nn.ModuleDict()
        for key, attn in layers.items():
            if projection is not None:
                self.ip_adapter[key] = ImageKeyValue(self.token_dim, attn.to_k.out_features)
            image = cast(ImageKeyValue, self.ip_adapter[key]) if projection is not None else None
            attn.set_processor(RowIPAttnProcessor(image))
        for module in (self.image_proj, self.ip_adapter):
            if module is not None:
                module.to(device=unet.device, dtype=unet.dtype)

    @classmethod
    def new(cls, unet: DiffusersUNet, *, num_tokens: int = 4, clip_dim: int) -> "ConditionedUNet":
        """Wrap `unet` with a fresh trainable base adapter; to_k_ip and to_v_ip start as copies of to_k and to_v."""
        model = cls(unet, projection=ImageProjection(clip_dim, unet.config.cross_attention_dim, num_tokens=num_tokens))
        with torch.no_grad():
            for key, attn in _cross_attention_layers(unet).items():
                image = cast(ImageKeyValue, model.ip_adapter[key])
                image.to_k_ip.weight.copy_(attn.to_k.weight)
                image.to_v_ip.weight.copy_(attn.to_v.weight)
        return model

    @classmethod
    def from_state_dict(cls, unet: DiffusersUNet, state: str | Path | State) -> "ConditionedUNet":
        """Wrap `unet` with published adapter weights.

        Args:
            unet: the UNet the adapter was trained for.
            state: a `.safetensors` or `.bin` file, or its content: a base or plus adapter.

        Raises:
            ModelError: another kind of adapter, or its shapes do not fit this UNet.
        """
        flat = read_adapter(state) if isinstance(state, str | Path) else _flatten(state)
        image = {key.removeprefix("image_proj."): value for key, value in flat.items() if key.startswith("image_proj.")}
        model = cls(unet, projection=read_projection(image, unet.config.cross_attention_dim))
        layers = {key: value for key, value in flat.items() if not key.startswith("image_proj.")}
        _check_fit({f"ip_adapter.{key}": value for key, value in model.ip_adapter.state_dict().items()}, layers)
        model.load_state_dict(layers, strict=False)
        return model

    def adapter_state_dict(self) -> dict[str, Tensor]:
        """The adapter's weights, which `from_state_dict` reads; of a base adapter, in the official layout."""
        return {key: value for key, value in self.state_dict().items() if not key.startswith("unet.")}

    def project(self, clip_embeds: Tensor) -> Tensor:
        """Turn the image encoder's output into (B, T, D) tokens.

        Args:
            clip_embeds: (B, E) for a base adapter, of which `project(zeros)` is "no image"; (B, L, E) for plus.

        Raises:
            ModelError: the model has no IP-Adapter.
        """
        if self.image_proj is None:
            raise ModelError("this model has no IP-Adapter and cannot use reference images; give it one")
        return self.image_proj(clip_embeds)

    def forward(
        self, sample: Tensor, timestep: Tensor, text_embeds: Tensor, image_embeds: Tensor, ip_scale: Tensor
    ) -> Tensor:
        """Predict the noise (or v) of one batch; row i depends on row i of every input only.

        Args:
            sample: latents, (B, C, h, w).
            timestep: training step of every row, (B,).
            text_embeds: last hidden state of the text encoder, (B, 77, D).
            image_embeds: image tokens from `project`, (B, T, D).
            ip_scale: lambda of every row, (B,); 0 gives the text-only prediction.

        Returns:
            (B, C, h, w), dtype of `sample`, whatever the weights' is.
        """
        x, text, image = (tensor.to(self.unet.dtype) for tensor in (sample, text_embeds, image_embeds))
        condition = (text, image, ip_scale)
        return self.unet(x, timestep, encoder_hidden_states=condition, return_dict=False)[0].to(sample.dtype)


def read_adapter(path: str | Path) -> dict[str, Tensor]:
    """Read an IP-Adapter file as a flat state dict.

    Args:
        path: `.safetensors`, or `.bin`/`.pt`/`.ckpt` (read with weights_only, so no code in it can run).

    Raises:
        ModelError: the file is missing or not a weight file.
    """
    flat = _flatten(read_weights(Path(path), "IP-Adapter"))
    if others := sorted(str(key) for key, value in flat.items() if not isinstance(value, Tensor)):
        raise ModelError(f"IP-Adapter file {path} holds things that are no weights: {', '.join(others[:4])}")
    return flat


def _flatten(state: State) -> dict[str, Tensor]:
    """Nested {"image_proj": {...}, "ip_adapter": {...}} -> dotted keys; a flat dict stays as it is."""
    flat: dict[str, Tensor] = {}
    for name, value in state.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}.{key}": tensor for key, tensor in value.items()})
        else:
            flat[name] = value
    return flat


def _check_fit(expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> None:
    """Raise ModelError listing keys and shapes in which an adapter file differs from what the UNet needs."""
    problems = [f"{key} is missing" for key in expected if key not in got]
    problems += [f"{key} is not known to this UNet" for key in got if key not in expected]
    problems += [
        f"{key} has shape {tuple(got[key].shape)}, the UNet needs {tuple(value.shape)}"
        for key, value in expected.items()
        if key in got and got[key].shape != value.shape
    ]
    if problems:
        shown = "; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" if len(problems) > 4 else "")
        raise ModelError(f"the IP-Adapter does not fit this UNet: {shown}. Use the one made for this base model")


def _cross_attention_layers(unet: DiffusersUNet) -> dict[str, Attention]:
    """Cross-attention layers under IP-Adapter's numbers: "1", "3", "5", ... in the order of unet.attn_processors.

    Raises:
        ModelError: the UNet has extra inputs or attention variants that this engine does not implement.
    """
    extra = ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim")
    used = [name for name in (*extra, "num_class_embeds") if unet.config.get(name) is not None]
    if used:
        raise ModelError(f"this UNet sets {', '.join(used)}; only Stable Diffusion 1.x/2.x UNets are supported")
    names = [name.removesuffix(".processor") for name in unet.attn_processors if "attn2" in name.split(".")]
    layers = {str(2 * i + 1): unet.get_submodule(name) for i, name in enumerate(names)}
    for name, attn in zip(names, layers.values(), strict=True):
        norms = (attn.spatial_norm, attn.group_norm, attn.norm_cross, attn.norm_q, attn.norm_k)
        plain = all(norm is None for norm in norms) and attn.added_kv_proj_dim is None
        if not plain or attn.residual_connection or attn.rescale_output_factor != 1:
            raise ModelError(f"attention layer {name} has extra norms or keys, which this engine does not implement")
    return layers
