"""What turns the image encoder's output into image tokens: one module per kind of IP-Adapter."""

from collections.abc import Mapping

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from torch import Tensor, nn

from fastgen.errors import ModelError

REFUSED = {
    "proj.3.weight": "full-face",
    "perceiver_resampler.proj_in.weight": "FaceID plus",
    "norm.weight": "FaceID",
}
"""Key of an image projection that is neither base nor plus -> name of its kind."""

BASE_MODELS = "768: Stable Diffusion 1.x, 1024: 2.x, 2048: XL"


class ImageProjection(nn.Module):
    """IP-Adapter's base projection: one CLIP image embedding becomes T tokens of cross-attention width."""

    reads_hidden_states = False
    """Takes `image_embeds` of the image encoder; "no image" is an embedding of zeros."""

    def __init__(self, clip_dim: int, token_dim: int, *, num_tokens: int) -> None:
        """Create a projection with fresh weights.

        Args:
            clip_dim: E, width of the image encoder's `image_embeds`.
            token_dim: D, the UNet's cross_attention_dim.
            num_tokens: T, 4 in the published base adapters.
        """
        super().__init__()
        self.clip_dim, self.token_dim, self.num_tokens = clip_dim, token_dim, num_tokens
        self.proj = nn.Linear(clip_dim, num_tokens * token_dim)
        self.norm = nn.LayerNorm(token_dim)

    def forward(self, clip_embeds: Tensor) -> Tensor:
        """Project (B, E) embeddings to (B, T, D) tokens. Zeros do not give zeros (bias and LayerNorm)."""
        return self.norm(self.proj(clip_embeds).unflatten(1, (self.num_tokens, -1)))


class ImageResampler(IPAdapterPlusImageProjection):
    """IP-Adapter plus: T learned queries (16 in the published ones) attend to all patches of the image."""

    reads_hidden_states = True
    """Takes the last but one hidden state of the image encoder; "no image" is that of a picture of zeros."""

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> "ImageResampler":
        """Create one from published weights, or from its own `state_dict`; sizes follow from the shapes."""
        if "layers.0.ln0.weight" not in state:
            convert = UNet2DConditionModel._convert_ip_adapter_image_proj_to_diffusers
            state = convert(None, dict(state), low_cpu_mem_usage=False).state_dict()
        made = cls(
            embed_dims=state["proj_in.weight"].shape[1],
            output_dims=state["proj_out.weight"].shape[0],
            hidden_dims=state["latents"].shape[2],
            heads=state["layers.0.attn.to_q.weight"].shape[0] // 64,
            num_queries=state["latents"].shape[1],
        )
        made.load_state_dict(state)
        return made

    @property
    def clip_dim(self) -> int:
        """E, width of the image encoder's hidden states."""
        return self.proj_in.in_features

    @property
    def token_dim(self) -> int:
        """D, the UNet's cross_attention_dim."""
        return self.proj_out.out_features

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.latents.shape[1]


def read_projection(state: Mapping[str, Tensor], token_dim: int) -> ImageProjection | ImageResampler:
    """Create the projection of an adapter file.

    Args:
        state: the file's `image_proj` part, without that prefix.
        token_dim: D, the UNet's cross_attention_dim.

    Raises:
        ModelError: not a base or plus adapter, damaged, or made for a UNet of another width.
    """
    projection: ImageProjection | ImageResampler
    try:
        if "proj.weight" in state and "norm.weight" in state:
            rows, clip_dim = state["proj.weight"].shape
            width = state["norm.weight"].shape[0]
            projection = ImageProjection(clip_dim, width, num_tokens=rows // width)
            projection.load_state_dict(state)
        elif "latents" in state:
            projection = ImageResampler.from_state_dict(state)
        else:
            kind = next((name for key, name in REFUSED.items() if key in state), None)
            raise ModelError(
                "this is not a base or plus IP-Adapter: "
                + (f"it is a {kind} adapter" if kind else f"its image_proj has the keys {sorted(state)[:4]}")
                + ". Use for example ip-adapter_sd15.safetensors or ip-adapter-plus_sd15.safetensors"
            )
    except (KeyError, IndexError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelError(f"the IP-Adapter's image projection is damaged: {error}") from error
    if projection.token_dim != token_dim:
        raise ModelError(
            f"the IP-Adapter makes tokens of width {projection.token_dim}, this UNet's cross-attention takes "
            f"{token_dim} ({BASE_MODELS}). Use the adapter made for this base model"
        )
    return projection


@torch.no_grad()
def no_image_tokens(projection: ImageProjection | ImageResampler, encoder: nn.Module) -> Tensor:
    """Tokens of "no image" for the unconditional half, (1, T, D).

    Args:
        projection: of the adapter.
        encoder: a `components.ImageEncoder` with this projection.
    """
    if projection.reads_hidden_states:
        side = encoder.encoder.config.image_size
        return encoder(torch.zeros(1, 3, side, side))
    return projection(torch.zeros(1, projection.clip_dim))
