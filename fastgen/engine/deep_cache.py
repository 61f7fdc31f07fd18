"""The UNet cut in two for DeepCache (arXiv 2312.00858): what changes slowly over the steps, and what does not.

The deep part is everything but the last layer of the last up block; its output is the feature that enters that layer.
The shallow part is that layer, its skip connection (the very first convolution) and the output convolution: the
paper's first skip branch. One after the other they are the whole UNet; between two runs of the deep part, the shallow
part may run several times on the same feature.

    feature = deep(x, t, ...);    noise = shallow(x, t, ..., feature)
"""

from typing import Any

import torch
from torch import Tensor, nn

from fastgen.engine.adapters import ConditionedUNet
from fastgen.engine.spec import DEEP, SHALLOW


def cut(unet: ConditionedUNet) -> dict[str, nn.Module]:
    """Component name -> module of the two parts; they share the weights of `unet`."""
    return {DEEP: UNetDeep(unet), SHALLOW: UNetShallow(unet)}


class _UNetPart(nn.Module):
    """What both parts need of a UNet: its first convolution, its time embedding, and the conditions of the layers."""

    def __init__(self, unet: ConditionedUNet) -> None:
        super().__init__()
        self.whole = unet

    @property
    def feature_channels(self) -> int:
        """C of the feature: what the last layer takes beside its skip connection."""
        unet = self.whole.unet
        return unet.up_blocks[-1].resnets[-1].in_channels - unet.conv_in.out_channels

    def _begin(
        self, sample: Tensor, timestep: Tensor, text_embeds: Tensor, image_embeds: Tensor, ip_scale: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        """First convolution's output, time embedding, and what cross-attention attends to."""
        unet = self.whole.unet
        x, text, image = (tensor.to(unet.dtype) for tensor in (sample, text_embeds, image_embeds))
        time = unet.time_embedding(unet.get_time_embed(sample=x, timestep=timestep))
        return unet.conv_in(x), time, (text, image, ip_scale)


class UNetDeep(_UNetPart):
    """Inputs of the UNet -> the feature that enters its last layer, float32 (B, C, h, w)."""

    def forward(
        self, sample: Tensor, timestep: Tensor, text_embeds: Tensor, image_embeds: Tensor, ip_scale: Tensor
    ) -> Tensor:
        """Run all but the last layer."""
        x, time, condition = self._begin(sample, timestep, text_embeds, image_embeds, ip_scale)
        unet, skips = self.whole.unet, (x,)
        for block in unet.down_blocks:
            x, added = block(x, time, **_attended(block, condition))
            skips += added
        x = unet.mid_block(x, time, **_attended(unet.mid_block, condition))
        for block in unet.up_blocks[:-1]:
            count = len(block.resnets)
            x = block(x, skips[-count:], time, **_attended(block, condition))
            skips = skips[:-count]
        last = unet.up_blocks[-1]
        for number in range(len(last.resnets) - 1):
            x = _layer(last, number, x, skips[-1 - number], time, condition)
        return x.float()


class UNetShallow(_UNetPart):
    """Inputs of the UNet and the feature, (B, C, h, w) -> predicted noise (or v), float32 (B, C, h, w)."""

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        text_embeds: Tensor,
        image_embeds: Tensor,
        ip_scale: Tensor,
        feature: Tensor,
    ) -> Tensor:
        """Run the last layer and what follows."""
        x, time, condition = self._begin(sample, timestep, text_embeds, image_embeds, ip_scale)
        unet, last = self.whole.unet, self.whole.unet.up_blocks[-1]
        x = _layer(last, len(last.resnets) - 1, feature.to(x.dtype), x, time, condition)
        if unet.conv_norm_out is not None:
            x = unet.conv_act(unet.conv_norm_out(x))
        return unet.conv_out(x).to(sample.dtype)


def _attended(block: Any, condition: tuple[Tensor, Tensor, Tensor]) -> dict[str, Any]:
    return {"encoder_hidden_states": condition} if getattr(block, "has_cross_attention", False) else {}


def _layer(
    block: Any, number: int, x: Tensor, skip: Tensor, time: Tensor, condition: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """One layer of an up block: the skip connection joins, then ResNet and, where there is one, attention."""
    x = block.resnets[number](torch.cat([x, skip], dim=1), time)
    if getattr(block, "has_cross_attention", False):
        x = block.attentions[number](x, encoder_hidden_states=condition, return_dict=False)[0]
    return x
