"""Runs the engine's ONNX files in ONNX Runtime, on CPU or CUDA."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fastgen.engine.spec import EngineSpec
from fastgen.errors import EngineError

GRAPHS = "onnx"
"""Folder of the graphs inside the engine folder."""


class OrtBackend:
    """One session per component. Tensors enter and leave in CPU memory, whichever device computes."""

    def __init__(self, folder: Path, spec: EngineSpec, *, threads: int = 0) -> None:
        """Open the graphs of an engine folder.

        Args:
            folder: the engine.
            spec: its engine.json.
            threads: inside one operator; 0 lets ONNX Runtime choose.

        Raises:
            EngineError: ONNX Runtime is not installed, or does not accept a graph.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError("the onnxruntime backend needs ONNX Runtime: pip install onnxruntime") from error
        self.device = torch.device("cpu")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        # TF32 would lose the parity gate; an exhaustive search for algorithms may choose others in every process
        cuda = ("CUDAExecutionProvider", {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})
        gpu = torch.cuda.is_available() and cuda[0] in onnxruntime.get_available_providers()
        providers = [cuda, "CPUExecutionProvider"] if gpu else ["CPUExecutionProvider"]
        self._sessions = {}
        for name in spec.components:
            path = folder / GRAPHS / f"{name}.onnx"
            try:
                session = onnxruntime.InferenceSession(str(path), options, providers=providers)
            except Exception as error:  # ONNX Runtime has a dozen unrelated types
                raise EngineError(f"{path}: ONNX Runtime does not accept it: {error}") from error
            if gpu and session.get_providers()[0] != cuda[0]:
                raise EngineError("ONNX Runtime could not use the GPU; install onnxruntime-gpu for this CUDA version")
            self._sessions[name] = session

    def __call__(self, component: str, tensors: Mapping[str, Tensor]) -> Tensor:
        """Run one component on one batch."""
        feeds = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors.items()}
        return torch.from_numpy(self._sessions[component].run(None, feeds)[0])
