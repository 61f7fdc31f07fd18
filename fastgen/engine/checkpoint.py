"""Single-file checkpoints (`.safetensors`, `.ckpt`) in the original Stable Diffusion layout, converted by diffusers."""

from pathlib import Path
from typing import Any

from fastgen.errors import ModelError

SUFFIXES = (".safetensors", ".ckpt")
UNET_KEY = "model.diffusion_model.input_blocks.0.0.weight"
ABSENT = ("safety_checker", "feature_extractor", "image_encoder")


def config_source(path: Path) -> str:
    """Hub id that diffusers takes the configs and the tokenizer of this checkpoint from.

    Raises:
        ModelError: it is no Stable Diffusion 1.x checkpoint; for 2.x the configs must be given.
    """
    from diffusers.loaders.single_file_utils import fetch_diffusers_config, infer_diffusers_model_type

    state = _read(path)
    kind = infer_diffusers_model_type(state)
    if kind == "v2":
        raise ModelError(
            f"{path} is a Stable Diffusion 2.x checkpoint, which does not say whether it predicts noise (base, 512) "
            "or v (768): give its model's configs with --config, a folder in diffusers layout or a hub id"
        )
    if kind != "v1":
        raise ModelError(f"{path} is a checkpoint of kind {kind}; engines are made from Stable Diffusion 1.x/2.x")
    return fetch_diffusers_config(state)["pretrained_model_name_or_path"]


def load_checkpoint(path: Path, config: Path) -> tuple[Any, Any, Any]:
    """Convert a checkpoint.

    Args:
        path: the file.
        config: folder in diffusers layout with the configs of all parts, tokenizer and scheduler.

    Returns:
        UNet, text encoder and VAE.

    Raises:
        ModelError: no checkpoint, a part is missing, or it does not fit the configs.
    """
    from diffusers import StableDiffusionPipeline

    _read(path)
    try:
        pipeline = StableDiffusionPipeline.from_single_file(
            str(path),
            config=str(config),
            local_files_only=True,
            requires_safety_checker=False,
            **dict.fromkeys(ABSENT),
        )
    except Exception as error:  # diffusers raises many unrelated types
        raise ModelError(f"{path} cannot be converted with the configs of {config}: {error}") from error
    return pipeline.unet, pipeline.text_encoder, pipeline.vae


def _read(path: Path) -> dict[str, Any]:
    """The checkpoint's tensors (mapped, not copied); `.ckpt` files with weights_only, so no code in them can run."""
    from diffusers.loaders.single_file_utils import load_single_file_checkpoint

    try:
        state = load_single_file_checkpoint(str(path))
    except Exception as error:  # torch and safetensors raise many unrelated types
        raise ModelError(
            f"{path} cannot be read as weights (a .ckpt that holds more than weights is refused, because loading it "
            f"would run code; convert it to .safetensors): {error}"
        ) from error
    if UNET_KEY not in state:
        raise ModelError(f"{path} is no Stable Diffusion checkpoint: it has no {UNET_KEY}")
    return state
