"""Runs the engine's modules in PyTorch: the reference for every other backend, on CPU or CUDA."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastgen.engine.precision import EXACT_DECODER, lower
from fastgen.engine.spec import EngineSpec

WEIGHTS = "torch"
"""Folder of the weights inside the engine folder."""

ADAPTER = "ip_adapter.safetensors"


class TorchBackend:
    """Every component as a torch module, in its precision."""

    def __init__(self, folder: Path, spec: EngineSpec, *, threads: int = 0) -> None:
        """Load the fused weights of an engine folder onto the GPU if there is one, else the CPU.

        Args:
            folder: the engine.
            spec: its engine.json.
            threads: PyTorch's own setting is used; a number here sets it for the whole process.
        """
        if threads:
            torch.set_num_threads(threads)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        modules = load_modules(folder / WEIGHTS, has_adapter=spec.has_image_prompt)
        if EXACT_DECODER in spec.components:
            modules[EXACT_DECODER] = modules["vae_decoder"]
        lowered = {name: lower(modules[name], precision) for name, precision in spec.precisions.items()}
        self._modules = {name: module.to(self.device) for name, module in lowered.items()}

    def __call__(self, component: str, tensors: Mapping[str, Tensor]) -> Tensor:
        """Run one component on one batch; the result lies on `device`."""
        inputs = {name: tensor.to(self.device) for name, tensor in tensors.items()}
        flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.no_grad(), flags:
            return self._modules[component](**inputs)


def save_modules(folder: Path, modules: Mapping[str, Any]) -> None:
    """Write the weights of `components.make_modules` so that `load_modules` finds them: safetensors and configs."""
    from safetensors.torch import save_file

    unet = modules["unet"]
    parts = {"unet": unet.unet, "text_encoder": modules["text_encoder"].encoder, "vae": modules["vae_decoder"].vae}
    if "image_encoder" in modules:
        parts["image_encoder"] = modules["image_encoder"].encoder
    for name, part in parts.items():
        _forget_origin(part)
        part.save_pretrained(folder / name, safe_serialization=True)
    if unet.image_proj is not None:
        save_file({key: value.contiguous() for key, value in unet.adapter_state_dict().items()}, folder / ADAPTER)


def load_modules(folder: Path, *, has_adapter: bool) -> dict[str, Any]:
    """Load what `save_modules` wrote, on the CPU."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPVisionModelWithProjection

    from fastgen.engine.adapters import ConditionedUNet
    from fastgen.engine.components import make_modules
    from fastgen.engine.model import load_part

    plain = load_part(UNet2DConditionModel, folder / "unet")
    encoder = load_part(CLIPVisionModelWithProjection, folder / "image_encoder") if has_adapter else None
    return make_modules(
        unet=ConditionedUNet.from_state_dict(plain, folder / ADAPTER) if has_adapter else ConditionedUNet(plain),
        text_encoder=load_part(CLIPTextModel, folder / "text_encoder"),
        vae=load_part(AutoencoderKL, folder / "vae"),
        image_encoder=encoder,
    )


def _forget_origin(part: Any) -> None:
    """Remove the path a part was loaded from: it would be saved, and the fingerprint would depend on it."""
    if hasattr(part, "register_to_config"):
        part.register_to_config(_name_or_path="")
    else:
        part.config._name_or_path = ""
