"""Runs the engine's modules in PyTorch: the reference for every other backend, on CPU or CUDA."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastgen.engine.gpu import CudaStream
from fastgen.engine.precision import EXACT_DECODER, lower
from fastgen.engine.spec import EngineSpec
from fastgen.engine.torch_fusion import fuse_for_gpu, fusion_version
from fastgen.engine.torch_program import PlainProgram, Program, RecordedProgram, ThreadedProgram
from fastgen.engine.weights import load_part
from fastgen.errors import EngineError

WEIGHTS = "torch"
"""Folder of the weights inside the engine folder."""

ADAPTER = "ip_adapter.safetensors"


COMPILED = ("unet", "vae_decoder")
"""What runs most: the components that a CUDA graph holds, and that torch.compile is for."""

COMPILE_OPTIONS = {"conv_1x1_as_mm": True, "deterministic": True}
"""Of torch.compile's inductor. Deterministic: nothing that can change a number is chosen by a race (see
`torch_program.steady_math`), so the kernels are the same in every process on the same GPU."""

PIECE_PIXELS = 8 * 512 * 512
"""Pixels that the VAE works on at once: more are no faster, take gigabytes, and pass the limits of 32-bit indices."""


class TorchBackend:
    """Every component as a torch module, in its precision; on a GPU channels last, the heavy ones as CUDA graphs."""

    spins = False

    def __init__(self, folder: Path, spec: EngineSpec, *, threads: int = 0) -> None:
        """Load the fused weights of an engine folder onto the GPU if there is one, else the CPU.

        What a build with `--compile` made is compiled at the first call of a component: minutes for a UNet, less when
        torch finds the kernels in its cache.

        Args:
            folder: the engine.
            spec: its engine.json.
            threads: PyTorch's own setting is used; a number here sets it for the whole process.

        Raises:
            EngineError: built with `--compile` for kernels that another fastgen has.
        """
        if threads:
            torch.set_num_threads(threads)
        stream = CudaStream() if torch.cuda.is_available() else None
        self.device = stream.device if stream else torch.device("cpu")
        if stream and spec.plan is not None:
            _check_plan(spec)
        modules = load_modules(folder / WEIGHTS, has_adapter=spec.has_image_prompt)
        if EXACT_DECODER in spec.components:
            modules[EXACT_DECODER] = modules["vae_decoder"]
        lowered = {name: lower(modules[name], precision) for name, precision in spec.precisions.items()}
        self._rows = {name: rows_together(name, spec) for name in lowered}
        self._programs = {name: self._program(name, module, spec, stream) for name, module in lowered.items()}

    def _program(self, name: str, module: Any, spec: EngineSpec, stream: CudaStream | None) -> Program:
        layout = torch.channels_last if stream else torch.preserve_format
        module = module.to(self.device, memory_format=layout)
        if name in COMPILED and spec.plan is not None:
            if stream:
                fuse_for_gpu(module)
            module = torch.compile(module, fullgraph=True, dynamic=False, options=spec.plan["torch_compile"])
        if stream is None:
            return ThreadedProgram(module, self._rows[name], threads=torch.get_num_threads())
        if name not in COMPILED:
            return PlainProgram(module, self.device)
        return RecordedProgram(module, spec.components[name], self._rows[name], stream)

    def rows(self, component: str) -> int:
        """Rows of every execution; see `rows_together`."""
        return self._rows[component]

    def __call__(self, component: str, tensors: Mapping[str, Tensor]) -> Tensor:
        """Run one component on exactly `rows(component)` rows; the result lies on `device`."""
        return self._programs[component](tensors)


def compile_plan() -> dict[str, Any]:
    """What engine.json says of a build with `--compile`: everything that decides the kernels."""
    return {"torch_compile": dict(COMPILE_OPTIONS), "torch_fusion": fusion_version()}


def _check_plan(spec: EngineSpec) -> None:
    """Refuse an engine whose images on a GPU were made by other kernels than this fastgen has."""
    if spec.plan != compile_plan():
        raise EngineError(
            f"this engine was built with --compile for other kernels ({spec.plan}; now {compile_plan()}), which would "
            f"change the last bits of its images. Build it again: {spec.build_command}"
        )


def rows_together(component: str, spec: EngineSpec) -> int:
    """Rows of one execution of a component: a divisor of the engine's batch, so that there is only this one shape."""
    if not component.startswith("vae"):
        return spec.batch
    share = 4 if component == EXACT_DECODER else 1  # it is rarely called, and not worth the memory
    most = max(1, PIECE_PIXELS // share // spec.size**2)
    return max(rows for rows in range(1, spec.batch + 1) if spec.batch % rows == 0 and rows <= most)


def save_modules(folder: Path, modules: Mapping[str, Any], precisions: Mapping[str, str]) -> None:
    """Write the weights of `components.make_modules` so that `load_modules` finds them: safetensors and configs.

    Args:
        folder: for the weights.
        modules: float32, and EXACT_DECODER if the engine has one.
        precisions: component -> what it computes in; its weights are written in that, which loses nothing.
    """
    from safetensors.torch import save_file

    exact = EXACT_DECODER if EXACT_DECODER in modules else "vae_decoder"
    owners = {"unet": "unet", "text_encoder": "encoder", exact: "vae", "image_encoder": "encoder"}
    for name, attribute in owners.items():
        if name not in modules:
            continue
        part = getattr(lower(modules[name], precisions[name]), attribute)
        _forget_origin(part)
        part.save_pretrained(folder / ("vae" if attribute == "vae" else name), safe_serialization=True)
    unet = modules["unet"]
    if unet.image_proj is not None:  # float32: UNet and image encoder have their share of it, each in its precision
        save_file({key: value.contiguous() for key, value in unet.adapter_state_dict().items()}, folder / ADAPTER)


def load_modules(folder: Path, *, has_adapter: bool) -> dict[str, Any]:
    """Load what `save_modules` wrote, on the CPU."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPVisionModelWithProjection

    from fastgen.engine.adapters import ConditionedUNet
    from fastgen.engine.components import make_modules

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
