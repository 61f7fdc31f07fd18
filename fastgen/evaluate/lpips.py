"""LPIPS v0.1 with AlexNet or VGG-16: the trunk from torchvision, the linear heads from a package that ships them."""

import pickle
import struct
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fastgen.errors import FastgenError, ModelError
from fastgen.evaluate.measure import Measure
from fastgen.evaluate.perceptual import embedder
from fastgen.files import sha256_json
from fastgen.weights_hash import weights_sha256

TAPS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}
"""Layers of torchvision's `features` whose outputs are compared: the ReLU at the end of each stage."""

HEADS = (("torchmetrics", "functional/image/lpips_models"), ("lpips", "weights/v0.1"))
"""Packages that ship the heads `alex.pth` and `vgg.pth`, and where in them."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""LPIPS shifts by (-.030, -.088, -.188) and scales by (.458, .448, .450) on [-1, 1]: the same on [0, 1]."""

BATCH = {"alex": 8, "vgg": 2}
"""Images at a time: at 512 pixels the compared outputs take 11 MB of an image with AlexNet, 128 MB with VGG-16."""

UNREADABLE = (
    OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError, struct.error,
    pickle.UnpicklingError, SafetensorError,
)  # fmt: skip
"""What torch, its hub and safetensors raise over files that are missing, damaged or something else."""


def lpips_measure(lpips: str, *, side: int, device: str = "cpu") -> Measure:
    """The distance `lpips_alex` or `lpips_vgg`.

    Args:
        lpips: `alex` or `vgg`, with torchvision's ImageNet weights from its cache or the network; or NAME=FILE
            with a file of them (.pth or .safetensors).
        side: both images are squashed to a square of so many pixels.
        device: torch device.

    Raises:
        FastgenError: if the name is unknown.
        ModelError: if weights are not at hand, or do not fit.
    """
    name, _, file = lpips.partition("=")
    if name not in TAPS:
        raise FastgenError(f"lpips is {lpips!r}; it must be alex or vgg, or alex=FILE or vgg=FILE")
    if file and not Path(file).is_file():
        raise ModelError(f"lpips {name}: no weights at {file}; give a file of torchvision's {_model(name)} weights")
    try:
        layers = _trunk(name, file).to(device)
    except UNREADABLE as error:
        raise ModelError(_no_trunk(name, file, error)) from error
    heads = [head.to(device) for head in _heads(name)]

    def stages(pixels: Tensor) -> list[Tensor]:
        found = []
        for number, layer in enumerate(layers):
            pixels = layer(pixels)
            if number in TAPS[name]:
                found.append(pixels)
        return found

    sha256 = weights_sha256(layers)
    return Measure(
        name=f"lpips_{name}",
        kind="distance",
        sha256=sha256_json(["lpips", name, sha256, [head.tolist() for head in heads], side]),
        embed=embedder(stages, heads, side=side, mean=MEAN, std=STD, device=device),
        batch=BATCH[name],
        about={"model": lpips, "sha256": sha256, "side": side, "version": "0.1"},
    )


def _model(name: str) -> str:
    return "AlexNet" if name == "alex" else "VGG-16"


def _trunk(name: str, file: str) -> nn.Sequential:
    """The layers up to the last tap; the classifier behind them is never made."""
    from torchvision import models

    with torch.device("meta"):
        features = (models.alexnet() if name == "alex" else models.vgg16()).features
    state: dict[str, Any]
    if not file:
        weights = models.AlexNet_Weights if name == "alex" else models.VGG16_Weights
        state = dict(weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True))
    elif file.endswith(".safetensors"):
        from safetensors.torch import load_file

        state = load_file(file)
    else:
        state = torch.load(file, map_location="cpu", weights_only=True)
    layers = features[: TAPS[name][-1] + 1]
    own = {key: state[f"features.{key}"].float() for key in layers.state_dict()}
    layers.load_state_dict(own, assign=True)
    return layers.eval().requires_grad_(False)


def _no_trunk(name: str, file: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    if file:
        return f"lpips {name}: {file} does not hold torchvision's {_model(name)} weights ({reason})"
    return (
        f"lpips {name}: torchvision's {_model(name)} weights are not on this machine and could not be downloaded "
        f"({reason}). Run the same command once where there is a network, give a file with --lpips {name}=FILE, "
        "or leave --lpips out for resnet_distance"
    )


def _heads(name: str) -> Sequence[Tensor]:
    """One weight >= 0 per channel of every stage."""
    for package, inside in HEADS:
        spec = find_spec(package)
        path = Path(spec.origin).parent / inside / f"{name}.pth" if spec and spec.origin else None
        if path is not None and path.is_file():
            state = torch.load(path, map_location="cpu", weights_only=True)
            return [state[f"lin{stage}.model.1.weight"].flatten() for stage in range(len(TAPS[name]))]
    raise ModelError(
        f"lpips {name}: its linear heads come with torchmetrics or lpips, and neither is installed; "
        "pip install 'fastgen-diffusion[eval]', or leave --lpips out for resnet_distance"
    )
