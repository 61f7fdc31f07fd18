"""Engine folders -> callables; the one place where a backend's name becomes a class."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from fastgen.engine.embeddings import expand_prompts
from fastgen.engine.precision import EXACT_DECODER
from fastgen.engine.spec import PROVIDERS, EngineSpec, read_spec, verify_files
from fastgen.errors import EngineError

if TYPE_CHECKING:
    from PIL import Image

UNCOND_FILE = "uncond_image_embeds.safetensors"
UNCOND_KEY = "uncond_image_embeds"


class Backend(Protocol):
    """What runs an engine's components.

    Attributes:
        device: where results lie.
        spins: its threads wait for work by turning on the CPU, and so would be in the way of PyTorch's.
    """

    device: torch.device
    spins: bool

    def rows(self, component: str) -> int:
        """Rows of every execution of a component: `spec.batch`, or less where more together gain nothing."""

    def __call__(self, component: str, tensors: Mapping[str, Tensor]) -> Tensor:
        """Run one component on exactly `rows(component)` rows."""


class Engine:
    """Text encoder, image encoder, UNet and VAE of one model, ready to run.

    Every execution of a component has the same number of rows, `spec.batch` or less: a call with more is cut into
    pieces, the last piece is filled up with copies of its last row. Kernels choose their order of summation by shape,
    so one fixed shape is what makes a row's result the same however many rows a call has.

    Attributes:
        spec: content of engine.json.
        fingerprint: hash of all of it.
        device: where results lie; arguments may lie anywhere.
        tokenizer: transformers.CLIPTokenizer.
        scheduler_config: config of the model's scheduler, with `_class_name`.
        uncond_image_embeds: image tokens of "no image", float32 (1, T, D); zeros for an engine without IP-Adapter.
    """

    def __init__(self, folder: Path, spec: EngineSpec, backend: Backend) -> None:
        """Read the small files of an engine folder; `load_engine` is the way in."""
        from safetensors.torch import load_file
        from transformers import CLIPImageProcessor, CLIPTokenizer

        self.spec = spec
        self.fingerprint = spec.fingerprint
        self.device = backend.device
        self.tokenizer: Any = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
        self.scheduler_config: dict[str, Any] = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        self.uncond_image_embeds = load_file(folder / UNCOND_FILE)[UNCOND_KEY].to(self.device)
        self._backend = backend
        self._extractor: Any = None
        if spec.has_image_prompt:
            path = str(folder / "feature_extractor")
            self._extractor = CLIPImageProcessor.from_pretrained(path, local_files_only=True)

    def feature_extractor(self, images: "list[Image.Image]") -> Tensor:
        """Preprocess RGB images for `encode_image`: float32 (B, 3, S, S).

        Raises:
            EngineError: the engine has no IP-Adapter.
        """
        if self._extractor is None:
            raise EngineError(self._no_adapter())
        return self._extractor(images, return_tensors="pt").pixel_values

    def expand(self, prompts: Sequence[str]) -> list[str]:
        """Prompts as the tokenizer must see them: words of several vectors written out (see `embeddings`)."""
        return expand_prompts(prompts, self.tokenizer) if self.spec.embeddings else list(prompts)

    def encode_text(self, input_ids: Tensor) -> Tensor:
        """Token ids int64 (B, 77) -> text embeddings float32 (B, 77, D)."""
        return self.run("text_encoder", {"input_ids": input_ids})

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Preprocessed images float32 (B, 3, S, S) -> image tokens float32 (B, T, D).

        Raises:
            EngineError: the engine has no IP-Adapter.
        """
        return self.run("image_encoder", {"pixel_values": pixel_values})

    def unet(
        self, *, sample: Tensor, timestep: Tensor, text_embeds: Tensor, image_embeds: Tensor, ip_scale: Tensor
    ) -> Tensor:
        """Predict the noise (or v); row i depends on row i of every argument only.

        Args:
            sample: latents, float32 (B, C, h, w).
            timestep: training step, integers or floats (B,).
            text_embeds: from `encode_text`, (B, 77, D).
            image_embeds: from `encode_image` or `uncond_image_embeds`, (B, T, D).
            ip_scale: lambda, float32 (B,).

        Returns:
            float32 (B, C, h, w).
        """
        tensors = {"sample": sample, "timestep": timestep.float(), "text_embeds": text_embeds}
        return self.run("unet", {**tensors, "image_embeds": image_embeds, "ip_scale": ip_scale})

    def decode(self, latents: Tensor) -> Tensor:
        """Latents as the scheduler leaves them, float32 (B, C, h, w) -> images (B, 3, H, W) in [-1, 1]."""
        return self.run("vae_decoder", {"latents": latents})

    def decode_exactly(self, latents: Tensor) -> Tensor | None:
        """As `decode`, in float32; None when `decode` is no less exact."""
        if EXACT_DECODER not in self.spec.components or self.spec.precisions["vae_decoder"] == "fp32":
            return None
        return self.run(EXACT_DECODER, {"latents": latents})

    def encode_moments(self, image: Tensor) -> Tensor:
        """Images float32 (B, 3, H, W) in [-1, 1] -> mean and log variance (B, 2C, h, w) of the unscaled latents."""
        return self.run("vae_encoder", {"image": image})

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """For what alternates between the engine and small tensor operations: gives the cores to the backend alone.

        On two cores, PyTorch's threads beside ONNX Runtime's cost 13 % of the speed of the embedded model.
        """
        before = torch.get_num_threads()
        torch.set_num_threads(1 if self._backend.spins else before)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def run(self, name: str, tensors: Mapping[str, Tensor]) -> Tensor:
        """Check a call, then run it in pieces of one size."""
        part = self.spec.components.get(name)
        if part is None:
            raise EngineError(self._no_adapter())
        rows, size = part.check(name, tensors), self._backend.rows(name)
        outputs = []
        for start in range(0, rows, size):
            piece = {key: tensor[start : start + size] for key, tensor in tensors.items()}
            missing = size - min(size, rows - start)
            if missing:
                piece = {key: torch.cat([t, t[-1:].expand(missing, *t.shape[1:])]) for key, t in piece.items()}
            outputs.append(self._backend(name, piece)[: size - missing])
        return torch.cat(outputs)

    def _no_adapter(self) -> str:
        return f"engine {self.spec.name} has no IP-Adapter and takes no reference images; build one with --ip-adapter"


def load_engine(path: str | Path, *, backend: str | None = None, threads: int = 0, provider: str = "auto") -> Engine:
    """Open an engine after checking that it is the one that was built.

    Args:
        path: the engine folder.
        backend: the backend it must be for; None takes whichever it was built for.
        threads: CPU threads inside one operator; 0 leaves it to the backend.
        provider: where ONNX Runtime computes: "auto", "cpu" or "cuda".

    Raises:
        EngineError: no engine, files differ from the build, or it is for another backend; says how to rebuild. Or the
            provider cannot be used.
    """
    folder = Path(path)
    spec = read_spec(folder)
    if backend is not None and backend != spec.backend:
        command = spec.build_command.replace(f"--backend {spec.backend}", f"--backend {backend}")
        command = command.replace(" --compile", "")
        raise EngineError(f"engine {folder} was built for {spec.backend}, not {backend}; build that one: {command}")
    check_provider(provider, spec.backend)
    verify_files(folder, spec)
    return open_engine(folder, spec, threads=threads, provider=provider)


def check_provider(provider: str, backend: str) -> None:
    """Check that a provider can be used here, before anything expensive.

    Raises:
        EngineError: no such provider, one for a backend that has none, or cuda where something is missing for it.
    """
    if provider not in PROVIDERS:
        raise EngineError(f"provider: got {provider!r}, allowed: {', '.join(PROVIDERS)}")
    if provider != "auto" and backend != "onnxruntime":
        raise EngineError(
            f"--provider {provider} is for engines of the backend onnxruntime, and this one is for {backend}, which "
            f"{'computes on the CPU' if backend == 'openvino' else 'takes the GPU if there is one'}: leave it out"
        )
    if provider == "cuda":
        from fastgen.engine.ort_backend import require_cuda

        require_cuda()


def computes_on_gpu(backend: str, provider: str) -> bool:
    """Whether an engine opened here would compute on a GPU."""
    if backend == "onnxruntime":
        from fastgen.engine.ort_backend import can_use_cuda

        return provider != "cpu" and can_use_cuda()
    return backend == "tensorrt" or (backend == "torch" and torch.cuda.is_available())


def open_engine(folder: Path, spec: EngineSpec, *, threads: int = 0, provider: str = "auto") -> Engine:
    """Open an engine folder without comparing its files with `spec`; the build does this before the spec is final."""
    backend: Backend
    if spec.backend == "onnxruntime":
        from fastgen.engine.ort_backend import OrtBackend

        backend = OrtBackend(folder, spec, threads=threads, provider=provider)
    elif spec.backend == "openvino":
        from fastgen.engine.openvino_backend import OpenVinoBackend

        backend = OpenVinoBackend(folder, spec, threads=threads)
    elif spec.backend == "torch":
        from fastgen.engine.torch_backend import TorchBackend

        backend = TorchBackend(folder, spec, threads=threads)
    elif spec.backend == "tensorrt":
        from fastgen.engine.tensorrt_backend import TensorRTBackend

        backend = TensorRTBackend(folder, spec, threads=threads)
    else:
        raise EngineError(f"engine {folder}: this fastgen has no backend {spec.backend!r}; {spec.build_command}")
    return Engine(folder, spec, backend)
