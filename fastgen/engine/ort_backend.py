"""Runs the engine's ONNX files in ONNX Runtime, on CPU or CUDA; tensors stay where they are."""

import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastgen.engine.spec import Component, EngineSpec
from fastgen.errors import EngineError

GRAPHS = "onnx"
"""Folder of the graphs inside the engine folder."""

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"

PIECE_PIXELS = 2 * 256 * 256
"""Pixels that VAE and image encoder work on at once on a CPU: more are no faster, take memory, and a batch that is not
full would pay for them."""

# TF32 would lose the parity gate; an exhaustive search for algorithms may choose others in every process
CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}


class OrtBackend:
    """One session per component; `device` is where it computes, and where results lie."""

    def __init__(self, folder: Path, spec: EngineSpec, *, threads: int = 0, provider: str = "auto") -> None:
        """Open the graphs of an engine folder.

        Args:
            folder: the engine.
            spec: its engine.json.
            threads: inside one operator; 0 takes PyTorch's number: OMP_NUM_THREADS, else as many as there are cores
                that this process may use.
            provider: "cpu", "cuda", or "auto": cuda where PyTorch finds a GPU and ONNX Runtime can use one.

        Raises:
            EngineError: ONNX Runtime is not installed, does not accept a graph, or cannot use the provider.
        """
        if provider == "cuda":
            require_cuda()
        onnxruntime = _onnxruntime()
        on_gpu, parts = provider != "cpu" and can_use_cuda(), list(spec.components.items())
        self.device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
        self.spins = not on_gpu
        options = onnxruntime.SessionOptions()
        # without a number, ONNX Runtime takes every core of the machine, and ties threads to cores of other SLURM jobs
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        cuda = (CUDA, {**CUDA_OPTIONS, "device_id": str(self.device.index)})
        self._rows = {name: spec.batch if on_gpu else rows_together(part, spec.batch) for name, part in parts}
        self._programs = {}
        for name, part in parts:
            path = folder / GRAPHS / f"{name}.onnx"
            try:
                session = onnxruntime.InferenceSession(str(path), options, providers=[cuda, CPU] if on_gpu else [CPU])
            except Exception as error:  # ONNX Runtime has a dozen unrelated types
                raise EngineError(f"{path}: ONNX Runtime does not accept it: {error}") from error
            if on_gpu and session.get_providers()[0] != CUDA:
                raise EngineError(
                    f"ONNX Runtime could not load its CUDA libraries (it was built for another CUDA or cuDNN than "
                    f"PyTorch's {torch.version.cuda}): install the onnxruntime-gpu for this CUDA version, or take "
                    "--provider cpu"
                )
            self._programs[name] = OrtProgram(session, part, self.device)

    def rows(self, component: str) -> int:
        """Rows of every execution; see `rows_together`."""
        return self._rows[component]

    def __call__(self, component: str, tensors: Mapping[str, Tensor]) -> Tensor:
        """Run one component on one batch; the result lies on `device` and belongs to the caller."""
        return self._programs[component](tensors)


def rows_together(part: Component, batch: int) -> int:
    """Rows of one execution on a CPU: a divisor of the engine's batch; fewer for what takes or gives large images."""
    images = [tensor.shape for tensor in (*part.inputs, part.output) if len(tensor.shape) == 3 and tensor.shape[0] == 3]
    pixels = max((prod(shape[1:]) for shape in images), default=1)
    return max(rows for rows in range(1, batch + 1) if batch % rows == 0 and rows <= max(1, PIECE_PIXELS // pixels))


class OrtProgram:
    """One session whose inputs and output are PyTorch's own memory, on the CPU or a GPU."""

    def __init__(self, session: Any, part: Component, device: torch.device) -> None:
        """Wrap a session.

        Args:
            session: an onnxruntime.InferenceSession that computes on `device`.
            part: its tensors.
            device: of all tensors.
        """
        self._session, self._part, self._device = session, part, device

    def __call__(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Run one batch: inputs by name, each (B, ...), anywhere; the output is float32 (B, ...) on `device`."""
        inputs = {name: tensor.detach().to(self._device).contiguous() for name, tensor in tensors.items()}
        rows = len(next(iter(inputs.values())))
        output = torch.empty((rows, *self._part.output.shape), dtype=torch.float32, device=self._device)
        binding = self._session.io_binding()
        for name, tensor in inputs.items():
            binding.bind_input(name, **self._place(tensor))
        binding.bind_output(self._part.output.name, **self._place(output))
        if self._device.type == "cuda":
            # ONNX Runtime computes on a stream of its own: what PyTorch has started must be there before. After the
            # run it waits for its stream itself, so the output is there when this returns.
            torch.cuda.current_stream(self._device).synchronize()
        self._session.run_with_iobinding(binding)
        return output

    def _place(self, tensor: Tensor) -> dict[str, Any]:
        """Where a tensor lies, in the words of `bind_input`."""
        return {
            "device_type": self._device.type,
            "device_id": self._device.index or 0,
            "element_type": str(tensor.dtype).removeprefix("torch."),
            "shape": tuple(tensor.shape),
            "buffer_ptr": tensor.data_ptr(),
        }


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError("the onnxruntime backend needs ONNX Runtime: pip install onnxruntime") from error
    return onnxruntime


def require_cuda() -> None:
    """Check that ONNX Runtime can be asked to compute on a GPU.

    Raises:
        EngineError: it cannot; says what is missing.
    """
    if missing := why_no_cuda(_onnxruntime()):
        raise EngineError(f"--provider cuda: {missing}; or take --provider cpu")


def can_use_cuda() -> bool:
    """Whether ONNX Runtime can be asked to compute on a GPU."""
    return not why_no_cuda(_onnxruntime())


def why_no_cuda(onnxruntime: Any) -> str:
    """Say what is missing for CUDA in ONNX Runtime, and what to do about it; "" if nothing is.

    Args:
        onnxruntime: the module.
    """
    if CUDA not in onnxruntime.get_available_providers():
        return (
            f"this ONNX Runtime ({onnxruntime.__version__}) is built without CUDA: pip uninstall onnxruntime, then "
            "pip install onnxruntime-gpu"
        )
    if torch.version.cuda is None:
        return f"this PyTorch ({torch.__version__}) is built without CUDA: install one that is"
    if not torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = f" (CUDA_VISIBLE_DEVICES is {visible!r})" if visible is not None else ""
        return f"no NVIDIA GPU, or no driver for it, is visible here{hidden}; see what nvidia-smi says"
    return ""
