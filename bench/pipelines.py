"""What a contender gives to the pipelines of diffusers and optimum: files, settings and pictures."""

from pathlib import Path
from typing import Any


def load_pipeline(kind: Any, work: dict[str, Any], precision: str, **parts: Any) -> Any:
    """Load the work's model with a diffusers pipeline."""
    return kind.from_pretrained(work["model"], safety_checker=None, **loading(work, precision), **parts)


def loading(work: dict[str, Any], precision: str) -> dict[str, Any]:
    """Which files to load, and as what."""
    import torch

    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    half = any(Path(work["model"]).glob("unet/*.fp16.*"))
    return {"variant": "fp16" if half else None, "torch_dtype": dtype}


def settings(work: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a call of a pipeline."""
    return {
        "num_inference_steps": work["steps"],
        "guidance_scale": work["guidance"],
        "height": work["size"],
        "width": work["size"],
    }


def picture(path: str, side: int) -> Any:
    """A reference as a square RGB image."""
    from PIL import Image

    return Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
