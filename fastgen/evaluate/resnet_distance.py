"""The embedded perceptual distance: LPIPS' formula over the mini ResNet's stages, every channel alike.

It is not LPIPS: its network is another one, trained on drawings of pets, and nothing was fitted to what people
see. Its numbers compare with each other only, on the same weights.
"""

from typing import Any

import torch
from safetensors import SafetensorError

from fastgen.errors import ModelError
from fastgen.evaluate.measure import MINI, Measure
from fastgen.evaluate.perceptual import embedder
from fastgen.files import sha256_json
from fastgen.weights_hash import weights_sha256

STAGES = (1, 2, 3, 4)
"""The four residual stages in timm's count; 0 is the stem."""


def resnet_measure(*, device: str = "cpu") -> Measure:
    """The distance `resnet_distance`: mean over stages and places of the squared unit difference, 0 to 2.

    Args:
        device: torch device.

    Raises:
        ModelError: if the embedded ResNet is missing or damaged.
    """
    import timm

    folder = MINI / "resnet"
    if not folder.is_dir():
        raise ModelError(
            f"resnet_distance: no weights at {folder}, which are part of a complete install; with ImageNet "
            "weights at hand give --lpips alex or vgg instead"
        )
    try:
        model: Any = timm.create_model(f"local-dir:{folder.resolve()}", pretrained=True, num_classes=0)
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"resnet_distance: the weights at {folder} cannot be loaded ({error})") from error
    model.eval().requires_grad_(False).to(device)
    cfg, widths = model.pretrained_cfg, [info["num_chs"] for info in model.feature_info]

    def stages(pixels: torch.Tensor) -> list[torch.Tensor]:
        return model.forward_intermediates(pixels, indices=list(STAGES), intermediates_only=True)

    side, mean, std = int(cfg["input_size"][-1]), tuple(cfg["mean"]), tuple(cfg["std"])
    weights = [torch.full((widths[stage],), 1 / len(STAGES), device=device) for stage in STAGES]
    sha256 = weights_sha256(model)
    return Measure(
        name="resnet_distance",
        kind="distance",
        sha256=sha256_json(["resnet_distance", sha256, side, mean, std, STAGES]),
        embed=embedder(stages, weights, side=side, mean=mean, std=std, device=device),
        about={"model": "mini", "sha256": sha256, "side": side, "stages": len(STAGES)},
    )
