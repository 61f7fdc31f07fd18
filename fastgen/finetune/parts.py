"""The parts of a model that a fine-tuning works with: frozen, and then given LoRA layers or new words."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastgen.engine.model import load_parts
from fastgen.engine.model_files import Sources, find_sources
from fastgen.engine.tokenizer import load_tokenizer
from fastgen.engine.weights import load_part
from fastgen.errors import ModelError
from fastgen.files import publish
from fastgen.finetune.loss import PREDICTIONS

UNET_TARGETS = ("to_k", "to_q", "to_v", "to_out.0")
TEXT_TARGETS = ("k_proj", "q_proj", "v_proj", "out_proj")
"""Every attention projection, of self- and cross-attention alike: DataDream's and BOB's choice."""

LORA_FILE = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A loaded model, float32, frozen.

    Attributes:
        sources: where it came from.
        unet, text_encoder, vae, tokenizer: the libraries' own modules.
        alphas: cumulative alphas of the training schedule, (T,).
        prediction: "epsilon" or "v_prediction".
        size: side of its pictures in pixels.
        defaults: generation settings (steps, guidance_scale).
        scheduler: diffusers scheduler made from the model's config.
    """

    sources: Sources
    unet: Any
    text_encoder: Any
    vae: Any
    tokenizer: Any
    alphas: Tensor
    prediction: str
    size: int
    defaults: dict[str, Any]
    scheduler: Any

    def to(self, device: torch.device) -> None:
        """Move the modules."""
        for module in (self.unet, self.text_encoder, self.vae):
            module.to(device)

    def token_ids(self, prompts: Sequence[str]) -> Tensor:
        """Tokens as Stable Diffusion's pipeline makes them, int64 (B, L)."""
        length = self.text_encoder.config.max_position_embeddings
        tokens = self.tokenizer(
            list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        return tokens.input_ids

    def too_long(self, prompts: Sequence[str]) -> list[str]:
        """The prompts whose ends the text encoder does not read."""
        counts = [len(ids) for ids in self.tokenizer(list(prompts)).input_ids] if prompts else []
        limit = self.text_encoder.config.max_position_embeddings
        return [prompt for prompt, count in zip(prompts, counts, strict=True) if count > limit]


def load_trainable(model: str | Path, *, vae: str | Path | None = None, size: int | None = None) -> Parts:
    """Load a Stable Diffusion 1.x or 2.x model for fine-tuning.

    Args:
        model: as for `fastgen build`: embedded name, folder, hub id or checkpoint.
        vae: another VAE than the model's own.
        size: side in pixels; None takes the model's.

    Raises:
        ModelError: it cannot be loaded, or predicts neither noise nor v, or cannot make pictures of that size.
    """
    from diffusers import DDIMScheduler

    sources = find_sources(model, vae=vae)
    unet, text_encoder, own_vae = load_parts(sources)
    scheduler = load_part(DDIMScheduler, sources.folder / "scheduler")
    prediction = scheduler.config.prediction_type
    if prediction not in PREDICTIONS:
        raise ModelError(f"{sources.id}: it predicts {prediction!r}; fine-tuning knows {' and '.join(PREDICTIONS)}")
    defaults = sources.defaults()
    side = size or defaults["size"]
    multiple = 2 ** (len(own_vae.config.block_out_channels) + len(unet.config.block_out_channels) - 2)
    if side < multiple or side % multiple:
        raise ModelError(f"size {side}: this model learns from squares whose side is a multiple of {multiple} pixels")
    for module in (unet, text_encoder, own_vae):
        module.eval().requires_grad_(False)
    return Parts(
        sources=sources,
        unet=unet,
        text_encoder=text_encoder,
        vae=own_vae,
        tokenizer=load_tokenizer(sources.folder / "tokenizer"),
        alphas=scheduler.alphas_cumprod.clone(),
        prediction=prediction,
        size=side,
        defaults=defaults,
        scheduler=scheduler,
    )


def add_lora(module: Any, targets: Sequence[str], *, rank: int, alpha: float, seed: int) -> dict[str, nn.Parameter]:
    """Add a LoRA by peft (gaussian down, zero up) and return its parameters by name.

    Args:
        module: UNet2DConditionModel or CLIPTextModel; changed in place.
        targets: ends of the names of its linear layers.
        rank, alpha: scale is alpha / rank.
        seed: of the start weights.
    """
    from peft import LoraConfig

    config = LoraConfig(r=rank, lora_alpha=alpha, init_lora_weights="gaussian", target_modules=list(targets))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module.add_adapter(config)
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def write_lora(folder: Path, *, unet: Any, text_encoder: Any | None) -> Path:
    """Write the LoRA of a UNet, and of a text encoder if it has one, by diffusers' own saver.

    Returns:
        The file, which `pipe.load_lora_weights(FOLDER)` and `fastgen build --lora NAME=FOLDER` take.
    """
    from diffusers import StableDiffusionPipeline
    from peft import get_peft_model_state_dict

    def layers(module: Any) -> dict[str, Tensor]:
        state = get_peft_model_state_dict(module)
        return {key: value.detach().float().cpu().contiguous() for key, value in state.items()}

    folder.mkdir(parents=True, exist_ok=True)
    temporary = f".{LORA_FILE}.tmp.safetensors"
    StableDiffusionPipeline.save_lora_weights(
        folder,
        unet_lora_layers=layers(unet),
        text_encoder_lora_layers=None if text_encoder is None else layers(text_encoder),
        unet_lora_adapter_metadata=unet.peft_config["default"].to_dict(),
        text_encoder_lora_adapter_metadata=(
            None if text_encoder is None else text_encoder.peft_config["default"].to_dict()
        ),
        weight_name=temporary,
    )
    return publish(folder / temporary, folder / LORA_FILE)
