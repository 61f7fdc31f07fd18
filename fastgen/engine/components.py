"""The callables of an engine as torch modules, and the tensors that go in and out of each.

Export, the torch backend and the parity gate all use these modules, so a tensor means the same in every backend. They
take and give float32 and compute in the type of their weights.
"""

from typing import Any

from torch import Tensor, nn

from fastgen.engine.adapters import ConditionedUNet
from fastgen.engine.precision import dtype_of
from fastgen.engine.projection import ImageProjection, ImageResampler
from fastgen.engine.spec import Component, TensorSpec
from fastgen.errors import ModelError


class TextEncoder(nn.Module):
    """Input ids (B, 77) -> last hidden state (B, 77, D)."""

    def __init__(self, encoder: Any) -> None:
        """Wrap a CLIPTextModel."""
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor) -> Tensor:
        """Encode tokens."""
        return self.encoder(input_ids, return_dict=False)[0].float()


class ImageEncoder(nn.Module):
    """Pixels (B, 3, S, S) -> image tokens (B, T, D): CLIP and the adapter's projection in one graph."""

    def __init__(self, encoder: Any, projection: ImageProjection | ImageResampler) -> None:
        """Wrap a CLIPVisionModelWithProjection and the projection that reads its output."""
        super().__init__()
        self.encoder = encoder
        self.projection = projection

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Encode preprocessed images."""
        pixels = pixel_values.to(dtype_of(self.encoder))
        if self.projection.reads_hidden_states:
            return self.projection(self.encoder(pixels, output_hidden_states=True).hidden_states[-2]).float()
        return self.projection(self.encoder(pixels, return_dict=False)[0]).float()


class VaeDecoder(nn.Module):
    """Latents as the scheduler leaves them (B, C, h, w) -> images (B, 3, H, W) in [-1, 1]."""

    def __init__(self, vae: Any) -> None:
        """Wrap an AutoencoderKL; the division by its scaling factor happens in here."""
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        """Decode latents."""
        scaled = (latents / self.vae.config.scaling_factor).to(dtype_of(self.vae))
        return self.vae.decode(scaled, return_dict=False)[0].float().clamp(-1, 1)


class VaeEncoder(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] -> mean and log variance of the unscaled latents (B, 2C, h, w)."""

    def __init__(self, vae: Any) -> None:
        """Wrap an AutoencoderKL."""
        super().__init__()
        self.vae = vae

    def forward(self, image: Tensor) -> Tensor:
        """Encode images; nothing is drawn here."""
        return self.vae._encode(image.to(dtype_of(self.vae))).float()


def make_modules(*, unet: ConditionedUNet, text_encoder: Any, vae: Any, image_encoder: Any) -> dict[str, Any]:
    """Return component name -> float32 module, frozen; without an image encoder there is no such component."""
    modules: dict[str, nn.Module] = {
        "text_encoder": TextEncoder(text_encoder),
        "unet": unet,
        "vae_decoder": VaeDecoder(vae),
        "vae_encoder": VaeEncoder(vae),
    }
    if image_encoder is not None and unet.image_proj is not None:
        modules["image_encoder"] = ImageEncoder(image_encoder, unet.image_proj)
    for module in modules.values():
        module.float().eval().requires_grad_(False)
    return modules


def describe(modules: dict[str, Any], *, size: int) -> dict[str, Component]:
    """Describe the tensors of every component.

    Args:
        modules: from `make_modules`.
        size: side of the image in pixels.

    Raises:
        ModelError: the model cannot make images of that size.
    """
    unet, vae = modules["unet"], modules["vae_decoder"].vae
    length = modules["text_encoder"].encoder.config.max_position_embeddings
    step = 2 ** (len(vae.config.block_out_channels) - 1)
    multiple = step * 2 ** (len(unet.unet.config.block_out_channels) - 1)
    if size < multiple or size % multiple:
        raise ModelError(f"size {size}: this model makes squares whose side is a multiple of {multiple} pixels")
    latents = (unet.unet.config.in_channels, size // step, size // step)
    tokens = TensorSpec(name="image_embeds", dtype="float32", shape=(unet.num_tokens, unet.token_dim))
    text = TensorSpec(name="text_embeds", dtype="float32", shape=(length, unet.token_dim))

    def numbers(name: str, *shape: int) -> TensorSpec:
        return TensorSpec(name=name, dtype="float32", shape=shape)

    ids = TensorSpec(name="input_ids", dtype="int64", shape=(length,))
    unet_inputs = (numbers("sample", *latents), numbers("timestep"), text, tokens, numbers("ip_scale"))
    moments = numbers("moments", 2 * latents[0], *latents[1:])
    image = numbers("image", 3, size, size)
    parts = {
        "text_encoder": Component(inputs=(ids,), output=text),
        "unet": Component(inputs=unet_inputs, output=numbers("noise", *latents)),
        "vae_decoder": Component(inputs=(numbers("latents", *latents),), output=image),
        "vae_encoder": Component(inputs=(image,), output=moments),
    }
    if "image_encoder" in modules:
        side = modules["image_encoder"].encoder.config.image_size
        pixels = numbers("pixel_values", 3, side, side)
        parts["image_encoder"] = Component(inputs=(pixels,), output=tokens)
    return parts
