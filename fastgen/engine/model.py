"""The files of a model -> torch modules with the engine's inputs and outputs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fastgen.engine.checkpoint import load_checkpoint
from fastgen.engine.embeddings import add_embeddings
from fastgen.engine.lora import fuse_loras
from fastgen.engine.model_files import Sources, read_json
from fastgen.engine.tokenizer import load_tokenizer
from fastgen.engine.weights import load_part
from fastgen.errors import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A loaded model: float32 modules on the CPU, LoRAs fused, embeddings added.

    Attributes:
        modules: component name -> module with exactly that component's inputs (see `components`).
        tokenizer: transformers.CLIPTokenizer.
        feature_extractor: transformers.CLIPImageProcessor, None without an adapter.
        scheduler_config: of the model's own scheduler, with `_class_name`.
        uncond_image_embeds: tokens of "no image", (1, T, D); zeros without an adapter.
    """

    modules: dict[str, Any]
    tokenizer: Any
    feature_extractor: Any
    scheduler_config: dict[str, Any]
    uncond_image_embeds: Tensor


def load_model(sources: Sources) -> Model:
    """Load a model, fuse its LoRAs and add its embeddings.

    Raises:
        ModelError: a part cannot be loaded, or parts do not fit each other.
    """
    import torch
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    from fastgen.engine.adapters import ConditionedUNet
    from fastgen.engine.components import make_modules
    from fastgen.engine.projection import no_image_tokens

    plain, text_encoder, vae = load_parts(sources)
    fuse_loras(sources.loras, unet=plain, text_encoder=text_encoder)
    tokenizer = load_tokenizer(sources.folder / "tokenizer")
    add_embeddings(sources.embeddings, tokenizer=tokenizer, text_encoder=text_encoder)
    encoder = extractor = None
    if sources.adapter is None:
        unet = ConditionedUNet(plain)
    else:
        unet = ConditionedUNet.from_state_dict(plain, sources.adapter)
        encoder = load_part(CLIPVisionModelWithProjection, sources.image_encoder).float()
        extractor = _load_extractor(sources.folder, CLIPImageProcessor, encoder.config.image_size)
        _check_image_encoder(sources, unet.image_proj, encoder.config)
    modules = make_modules(unet=unet, text_encoder=text_encoder, vae=vae, image_encoder=encoder)
    if unet.image_proj is None:
        tokens = torch.zeros(1, unet.num_tokens, unet.token_dim)
    else:
        tokens = no_image_tokens(unet.image_proj, modules["image_encoder"])
    return Model(
        modules=modules,
        tokenizer=tokenizer,
        feature_extractor=extractor,
        scheduler_config=_load_scheduler(sources.folder / "scheduler"),
        uncond_image_embeds=tokens,
    )


def load_parts(sources: Sources) -> tuple[Any, Any, Any]:
    """Load UNet, text encoder and VAE as the libraries' own modules, float32, nothing fused or added.

    Raises:
        ModelError: a part cannot be loaded, or parts do not fit each other.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    folder = sources.folder
    if sources.checkpoint is not None:
        unet, text_encoder, vae = load_checkpoint(sources.checkpoint, folder)
    else:
        unet = load_part(UNet2DConditionModel, folder / "unet")
        text_encoder = load_part(CLIPTextModel, folder / "text_encoder")
        vae = None if sources.vae else load_part(AutoencoderKL, folder / "vae")
    if sources.vae is not None:
        vae = load_part(AutoencoderKL, sources.vae)
    _check_widths(unet, text_encoder, vae)
    return unet.float(), text_encoder.float(), vae.float()


def _check_widths(unet: Any, text_encoder: Any, vae: Any) -> None:
    """Refuse parts that were not made for each other."""
    if vae.config.get("shift_factor"):
        raise ModelError("a VAE with a shift_factor is not supported")
    channels, latents = unet.config.in_channels, vae.config.latent_channels
    if channels != latents:
        raise ModelError(
            f"the UNet takes {channels} channels, the VAE makes latents of {latents}: they do not belong together "
            "(inpainting and image-editing UNets, which take more, are not supported)"
        )
    width, wanted = text_encoder.config.hidden_size, unet.config.cross_attention_dim
    if width != wanted:
        raise ModelError(f"the text encoder is {width} wide, the UNet's cross-attention takes {wanted}")


def _check_image_encoder(sources: Sources, projection: Any, config: Any) -> None:
    """Refuse an image encoder that the adapter was not made for."""
    got = config.hidden_size if projection.reads_hidden_states else config.projection_dim
    if got != projection.clip_dim:
        what = "hidden states" if projection.reads_hidden_states else "image embeddings"
        name = sources.adapter.name if sources.adapter else ""
        raise ModelError(
            f"IP-Adapter {name} needs {what} of width {projection.clip_dim}, the image encoder "
            f"{sources.image_encoder} has {got}; use the encoder made for this adapter"
        )


def _load_extractor(folder: Path, kind: Any, image_size: int) -> Any:
    """The model's image preprocessing when it makes the encoder's size, else CLIP's own at that size."""
    if (folder / "feature_extractor").is_dir():
        extractor = load_part(kind, folder / "feature_extractor")
        if extractor.crop_size == {"height": image_size, "width": image_size}:
            return extractor
    return kind(size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size})


def _load_scheduler(folder: Path) -> dict[str, Any]:
    """The model's scheduler config with the two corrections that diffusers' pipelines make to old ones.

    Everything else stays as written: a value the file leaves out is the default of whichever scheduler a row asks for.
    """
    import diffusers

    config = read_json(folder / "scheduler_config.json")
    kind = getattr(diffusers, config.get("_class_name", ""), None)
    if kind is None:
        raise ModelError(f"{folder}: diffusers has no scheduler {config.get('_class_name')!r}")
    full = kind.from_config(config).config
    if full.get("steps_offset", 1) != 1:
        config["steps_offset"] = 1
    if full.get("clip_sample", False):
        config["clip_sample"] = False
    return config
