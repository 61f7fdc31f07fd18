"""Rewrites UNet and VAE decoder before torch.compile on an NVIDIA GPU, where inductor left time on the table.

The numbers stay the same but for rounding. bench/NOTES.md has the profile that each rewrite comes from.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastgen.engine.adapters import ConditionedUNet, RowIPAttnProcessor
from fastgen.engine.components import VaeDecoder
from fastgen.engine.precision import device_of, dtype_of
from fastgen.files import sha256_file, sha256_json

BLOCKS = 2048
"""Pieces that a group norm's sums are spread over: some for each of a GPU's 100 to 150 multiprocessors."""

COLUMNS = 64
"""Channels of a piece, as inductor cuts them."""

SMALLEST_CAPABILITY = (8, 0)
"""Cards before Ampere have too little shared memory for a block of `row_attention`."""

SOURCES = ("torch_fusion.py", "row_attention.py")


def fusion_version() -> str:
    """Hash of the code of the rewrites: it decides the last bits of an image, so engine.json names it."""
    return sha256_json([sha256_file(Path(__file__).parent / name) for name in SOURCES])[:12]


def fuse_for_gpu(module: nn.Module) -> None:
    """Rewrite a component in place; one in float32 is left as it is.

    Args:
        module: a ConditionedUNet or a VaeDecoder, channels last and on the GPU. Of the decoder's VAE, the encoder stays
            as it is: it may be shared.
    """
    if dtype_of(module) not in (torch.float16, torch.bfloat16):
        return
    if isinstance(module, VaeDecoder):
        _replace_group_norms(module.vae.decoder)
    elif isinstance(module, ConditionedUNet):
        _fuse_projections(module)
        _fuse_cross_attention(module)


class ChannelsLastGroupNorm(nn.Module):
    """nn.GroupNorm for half precision in channels-last memory, in steps that inductor turns into whole reads.

    Sums run down the positions for all channels side by side, as they lie in memory, and are put together to groups
    afterwards. Inductor's own lowering walks through one group after the other, which is slower for the decoder's large
    pictures, and faster for the UNet's small ones.

    The variance is the mean square less the squared mean, in float32: where that loses digits, the mean is so many
    standard deviations away from zero that the half-precision input itself has fewer left.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        """Take over the weights of `norm`, which has some."""
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        self._groups, self._eps = norm.num_groups, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, ...)."""
        batch, channels, groups = len(x), x.shape[1], self._groups
        positions = x.numel() // (batch * channels)
        pieces = pieces_of(batch, positions, channels)
        values = x.movedim(1, -1).reshape(batch, pieces, positions // pieces, channels).float()  # in memory's order
        sums = torch.stack([values.sum(2).sum(1), (values * values).sum(2).sum(1)], 1)  # (B, 2, C)
        means = sums.view(batch, 2, groups, -1).sum(-1) / (positions * channels // groups)
        mean, square = means.unbind(1)  # (B, G)
        scale = torch.rsqrt((square - mean * mean).clamp(min=0) + self._eps)
        scale = scale.repeat_interleave(channels // groups, 1) * self.weight.float()
        shift = self.bias.float() - mean.repeat_interleave(channels // groups, 1) * scale
        shape = (batch, channels, *(1 for _ in x.shape[2:]))
        return (x.float() * scale.view(shape) + shift.view(shape)).to(x.dtype)


def pieces_of(rows: int, positions: int, channels: int) -> int:
    """Parts to cut the positions of a group norm into: a power of two that divides them, for about BLOCKS pieces."""
    pieces = 1
    blocks = rows * -(-channels // COLUMNS)
    while blocks * pieces < BLOCKS and positions % (2 * pieces) == 0 and positions >= 128 * pieces:
        pieces *= 2
    return pieces


def _replace_group_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, ChannelsLastGroupNorm(child))
        else:
            _replace_group_norms(child)


def _fuse_projections(unet: ConditionedUNet) -> None:
    """One matrix product for query, key and value of self-attention."""
    from diffusers.models.attention_processor import FusedAttnProcessor2_0

    for name in unet.unet.attn_processors:
        if "attn1" in name.split("."):
            layer: Any = unet.unet.get_submodule(name.removesuffix(".processor"))
            layer.fuse_projections(fuse=True)
            layer.set_processor(FusedAttnProcessor2_0())


def _fuse_cross_attention(unet: ConditionedUNet) -> None:
    """One kernel for text and image, where there are images and the model does not ask for float32 logits."""
    from fastgen.engine.row_attention import OneKernelProcessor

    device = device_of(unet)
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < SMALLEST_CAPABILITY:
        return
    for layer in unet.unet.modules():
        processor = getattr(layer, "processor", None)
        if isinstance(processor, RowIPAttnProcessor) and processor.image is not None and not layer.upcast_attention:
            layer.set_processor(OneKernelProcessor(processor.image))
