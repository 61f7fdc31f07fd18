"""Runs the engine's TensorRT plans on one GPU: fixed buffers, one stream, one CUDA graph per component."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastgen.engine.gpu import CudaStream
from fastgen.engine.spec import Component, EngineSpec, TensorSpec
from fastgen.engine.tensorrt_platform import PLANS, check_platform, describe_platform, make_logger, require_tensorrt
from fastgen.errors import EngineError


class TensorRTBackend:
    """One plan per component, all in one scratch memory: they run one after the other."""

    spins = False

    def __init__(self, folder: Path, spec: EngineSpec, *, threads: int = 0) -> None:
        """Load the plans of an engine folder onto the current GPU.

        Args:
            folder: the engine.
            spec: its engine.json.
            threads: of no meaning here.

        Raises:
            EngineError: no GPU, no TensorRT 11, or plans that are for another version, GPU or batch size.
        """
        trt = require_tensorrt()
        check_platform(spec, describe_platform(trt))
        stream = CudaStream()
        self.device = stream.device
        self._logger = make_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        engines = {name: self._read_plan(folder, spec, name) for name in spec.components}
        size = max(engine.device_memory_size_v2 for engine in engines.values())
        self._scratch = torch.empty(max(size, 1), dtype=torch.uint8, device=self.device)
        self._batch, self._programs = spec.batch, {}
        for name, engine in engines.items():
            try:
                program = TensorRTProgram(trt, engine, spec.components[name], spec.batch, self._scratch, stream)
            except _PlanError as error:
                reason = self._logger.reason()
                raise EngineError(f"{_plan_path(folder, name)}: {error}{reason}; {_again(spec)}") from None
            self._programs[name] = program

    def rows(self, component: str) -> int:
        """Rows of every execution: the engine's batch for all components."""
        return self._batch

    def __call__(self, component: str, tensors: Mapping[str, Tensor]) -> Tensor:
        """Run one component on one batch; the result lies on `device` and belongs to the caller."""
        return self._programs[component](tensors)

    def _read_plan(self, folder: Path, spec: EngineSpec, name: str) -> Any:
        path = _plan_path(folder, name)
        try:
            engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        except OSError as error:
            raise EngineError(f"{path} cannot be read ({error.strerror or error}); {_again(spec)}") from error
        if engine is None:
            raise EngineError(f"{path}: TensorRT does not accept the plan{self._logger.reason()}; {_again(spec)}")
        return engine


class TensorRTProgram:
    """One plan with its tensors at fixed addresses, ready to be replayed."""

    def __init__(self, trt: Any, engine: Any, part: Component, batch: int, scratch: Tensor, stream: CudaStream) -> None:
        """Allocate the tensors, run the plan once and record it.

        Args:
            trt: the `tensorrt` module.
            engine: a deserialized plan.
            part: the tensors it must have.
            batch: rows of every execution.
            scratch: memory for the plan's own use, at least `engine.device_memory_size_v2` bytes; may be shared by
                programs that never run at the same time.
            stream: where it runs.

        Raises:
            _PlanError: the plan has other tensors, or TensorRT refuses to run it.
        """
        specs = (*part.inputs, part.output)
        _check_tensors(trt, engine, part, batch)
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise _PlanError("TensorRT cannot run it; is the GPU's memory full?")
        context.set_device_memory(scratch.data_ptr(), scratch.numel())
        for spec in part.inputs:
            if not context.set_input_shape(spec.name, (batch, *spec.shape)):
                raise _PlanError(f"{batch} rows of {spec} are outside of its profile")
        unknown = context.infer_shapes()
        if unknown or tuple(context.get_tensor_shape(part.output.name)) != (batch, *part.output.shape):
            raise _PlanError(f"the shape of {', '.join(unknown) or part.output.name} is not the one of engine.json")
        self._buffers = {spec.name: _buffer(spec, batch, stream.device) for spec in specs}
        for name, buffer in self._buffers.items():
            if not context.set_tensor_address(name, buffer.data_ptr()):
                raise _PlanError(f"TensorRT does not take the address of {name}")
        self._output = part.output.name
        self._engine, self._context, self._scratch, self._stream = engine, context, scratch, stream  # kept alive
        self._replay = stream.record(self._launch)

    def __call__(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Copy the inputs in, replay, and return a copy of the output, which the next call leaves alone."""
        return self._stream.run(lambda: self._step(tensors))

    @torch.no_grad()
    def _step(self, tensors: Mapping[str, Tensor]) -> Tensor:
        for name, tensor in tensors.items():
            self._stream.copy(self._buffers[name], tensor)
        self._replay()
        return self._buffers[self._output].clone()

    def _launch(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise _PlanError("TensorRT could not start it")


class _PlanError(Exception):
    """A plan is of no use; the backend adds the file and the remedy."""


def _check_tensors(trt: Any, engine: Any, part: Component, batch: int) -> None:
    """Compare names, directions, types and the one shape of the profile with engine.json."""
    mode, kinds = trt.TensorIOMode, {"float32": trt.DataType.FLOAT, "int64": trt.DataType.INT64}
    specs = {spec.name: (spec, mode.INPUT) for spec in part.inputs}
    specs[part.output.name] = (part.output, mode.OUTPUT)
    names = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
    if names != specs.keys():
        raise _PlanError(f"it has the tensors {sorted(names)}, engine.json says {sorted(specs)}")
    for name, (spec, direction) in specs.items():
        dtype = engine.get_tensor_dtype(name)
        if engine.get_tensor_mode(name) != direction or dtype != kinds[spec.dtype]:
            raise _PlanError(f"its {name} is {dtype}, {engine.get_tensor_mode(name)}; engine.json says {spec}")
        if direction == mode.INPUT:
            smallest, _, largest = (tuple(shape) for shape in engine.get_tensor_profile_shape(name, 0))
            if not smallest == largest == (batch, *spec.shape):
                raise _PlanError(f"its {name} takes {smallest} to {largest}; engine.json says {spec}, B = {batch}")


def _buffer(spec: TensorSpec, batch: int, device: torch.device) -> Tensor:
    """Zeros; the first, unrecorded execution reads them."""
    return torch.zeros((batch, *spec.shape), dtype=getattr(torch, spec.dtype), device=device)


def _plan_path(folder: Path, name: str) -> Path:
    return folder / PLANS / f"{name}.plan"


def _again(spec: EngineSpec) -> str:
    return f"build the engine again: {spec.build_command}"
