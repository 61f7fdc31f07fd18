"""Networks that turn images into vectors for FID and for the context probe."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastgen.clip import ScoringClip
from fastgen.errors import FastgenError, ModelError
from fastgen.evaluate.measure import MINI
from fastgen.files import sha256_file
from fastgen.weights_hash import weights_sha256

FEATURES = ("mini-resnet", "clip", "inception")
BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """A feature extractor.

    Attributes:
        name: one of `FEATURES`.
        embed: RGB images of any size -> float32 (B, D).
        about: what report.json says about it.
    """

    name: str
    embed: Callable[[Sequence[Image.Image]], np.ndarray]
    about: dict[str, Any]


def load_features(source: str | None = None, *, clip: str | Path | None = None, device: str = "cpu") -> Features:
    """Load a feature extractor.

    Args:
        source: "mini-resnet", the embedded ResNet (None is it too); "clip", the CLIP that CLIP-I uses; or
            "inception=FILE", FID's own InceptionV3 with weights from a file (pt_inception-2015-12-05-*.pth of
            torch-fidelity, which must be installed).
        clip: for "clip", as for `clip_measure`; None is the embedded one.
        device: torch device.

    Raises:
        FastgenError: there is no such extractor.
        ModelError: its weights are not at hand.
    """
    name, _, file = (source or "mini-resnet").partition("=")
    if name not in FEATURES or bool(file) != (name == "inception"):
        raise FastgenError(f"features: got {source!r}; allowed: mini-resnet, clip or inception=FILE")
    if name == "clip":
        model = ScoringClip.load(clip or MINI / "clip", device=device)
        about = {"model": "mini" if clip is None else str(clip), "sha256": model.sha256}
        return Features(name=name, embed=model.embed_images, about=about)
    return _inception(Path(file), device) if name == "inception" else _resnet(device)


def module_features(module: Callable[[Tensor], Tensor], *, name: str = "module", device: str = "cpu") -> Features:
    """Wrap a module with the interface that torchmetrics' FrechetInceptionDistance takes as `feature`.

    Args:
        module: uint8 (B, 3, H, W) -> (B, D).
        name: for the report.
        device: where the module lies.
    """

    @torch.inference_mode()
    def embed(images: Sequence[Image.Image]) -> np.ndarray:
        pixels = np.stack([np.asarray(image) for image in images])
        return module(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)).float().cpu().numpy()

    def by_size(images: Sequence[Image.Image]) -> np.ndarray:
        """One size is one batch: the module resizes as it is wont to."""
        if len({image.size for image in images}) == 1:
            return embed(images)
        return np.concatenate([embed([image]) for image in images])

    return Features(name=name, embed=by_size, about={"model": name})


def _resnet(device: str) -> Features:
    """The embedded ResNet's pooled vector, images squashed to its size, bilinear."""
    import timm

    folder = MINI / "resnet"
    try:
        model: Any = timm.create_model(f"local-dir:{folder.resolve()}", pretrained=True, num_classes=0)
    except Exception as error:  # timm and safetensors raise half a dozen types
        raise ModelError(f"features mini-resnet: the weights at {folder} cannot be loaded ({error})") from error
    model.eval().requires_grad_(False).to(device)
    cfg = model.pretrained_cfg
    side = int(cfg["input_size"][-1])
    mean, std = (torch.tensor(cfg[key], device=device)[:, None, None] for key in ("mean", "std"))

    @torch.inference_mode()
    def embed(images: Sequence[Image.Image]) -> np.ndarray:
        squares = [np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)) for image in images]
        pixels = torch.from_numpy(np.stack(squares)).to(device).permute(0, 3, 1, 2).float() / 255
        return model((pixels - mean) / std).float().cpu().numpy()

    return Features(name="mini-resnet", embed=embed, about={"model": "mini", "sha256": weights_sha256(model)})


def _inception(file: Path, device: str) -> Features:
    """FID's InceptionV3, pool 3, 2048 numbers, by torchmetrics and torch-fidelity."""
    if not file.is_file():
        raise ModelError(f"features inception: no weights at {file}; give pt_inception-2015-12-05-6726825d.pth")
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        network: Any = NoTrainInceptionV3(
            name="inception-v3-compat", features_list=["2048"], feature_extractor_weights_path=str(file)
        )
    except ImportError as error:  # ModuleNotFoundError is one
        raise ModelError(f"features inception: {error}; pip install torchmetrics torch-fidelity") from error
    except Exception as error:  # whatever torch says of a file that holds something else
        raise ModelError(f"features inception: the weights at {file} cannot be loaded ({error})") from error
    found = module_features(network.to(device), name="inception", device=device)
    return Features(name="inception", embed=found.embed, about={"model": file.name, "sha256": sha256_file(file)})
