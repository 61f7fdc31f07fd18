"""Runs an engine's ONNX files in OpenVINO, on a CPU: the fastest there where it has instructions for bf16."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastgen.engine.ort_backend import GRAPHS, rows_together
from fastgen.engine.spec import EngineSpec
from fastgen.errors import EngineError

DEVICE = "CPU"
HINTS = {"fp32": "f32", "bf16": "bf16"}
"""Precision of a component -> OpenVINO's name; the graph itself is float32, and so are inputs and outputs."""


class _Program:
    """One compiled component, whose inputs and output stay where they are: a call copies and computes, no more."""

    def __init__(self, request: Any, inputs: Sequence[str]) -> None:
        self._request = request
        self._inputs = {name: torch.from_numpy(request.get_tensor(name).data) for name in inputs}
        self._output = torch.from_numpy(request.get_output_tensor(0).data)

    def __call__(self, tensors: Mapping[str, Tensor]) -> Tensor:
        for name, place in self._inputs.items():
            place.copy_(tensors[name])
        self._request.start_async()
        self._request.wait()
        return self._output.clone()


class OpenVinoBackend:
    """One compiled model per component, each for one shape."""

    device = torch.device("cpu")
    spins = True

    def __init__(self, folder: Path, spec: EngineSpec, *, threads: int = 0) -> None:
        """Compile the graphs of an engine folder for this CPU: half a minute for Stable Diffusion.

        Args:
            folder: the engine.
            spec: its engine.json.
            threads: inside one operator; 0 takes PyTorch's number: OMP_NUM_THREADS, else as many as there are cores
                that this process may use.

        Raises:
            EngineError: OpenVINO is not installed, this CPU cannot compute in a component's precision, or a graph is
                not accepted.
        """
        core = require_openvino(spec.precision)
        self._rows = {name: rows_together(part, spec.batch) for name, part in spec.components.items()}
        self._programs = {}
        for name, part in spec.components.items():
            path = folder / GRAPHS / f"{name}.onnx"
            config = {
                "INFERENCE_PRECISION_HINT": HINTS[spec.precisions[name]],
                "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
                "NUM_STREAMS": 1,
            }
            try:
                model = core.read_model(path)
                model.reshape({tensor.name: [self._rows[name], *tensor.shape] for tensor in part.inputs})
                request = core.compile_model(model, DEVICE, config).create_infer_request()
                self._programs[name] = _Program(request, [tensor.name for tensor in part.inputs])
            except Exception as error:  # OpenVINO raises bare RuntimeErrors
                raise EngineError(f"{path}: OpenVINO does not accept it: {error}") from error

    def rows(self, component: str) -> int:
        """Rows of every execution; see `ort_backend.rows_together`."""
        return self._rows[component]

    def __call__(self, component: str, tensors: Mapping[str, Tensor]) -> Tensor:
        """Run one component on exactly `rows(component)` rows; the result belongs to the caller."""
        return self._programs[component](tensors)


@functools.cache
def _core(openvino: Any) -> Any:
    """The process's one Core, kept for good.

    Processes that made a Core for every engine, and gave up some twenty of both, ended in a segmentation fault later.
    """
    return openvino.Core()


def require_openvino(precision: str) -> Any:
    """Return an openvino.Core whose CPU can compute in a precision.

    Raises:
        EngineError: OpenVINO is not installed, or the CPU has no instructions for the precision.
    """
    try:
        import openvino
    except ImportError as error:
        raise EngineError("the openvino backend needs OpenVINO: pip install openvino") from error
    core = _core(openvino)
    if precision == "bf16" and "BF16" not in core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"):
        raise EngineError(
            "precision bf16: this CPU has no instructions for it (AVX512_BF16 or AMX), and OpenVINO would compute in "
            "float32; take --precision fp32, or a machine that has them"
        )
    return core
