"""One component of the torch backend at one fixed shape: called as it is, or recorded on the GPU and replayed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from fastgen.engine.spec import Component

Program = Callable[[Mapping[str, Tensor]], Tensor]
"""Runs a component on exactly its number of rows; the result belongs to the caller."""


class Stream(Protocol):
    """What a recording needs of `gpu.CudaStream`."""

    device: torch.device

    def record(self, launch: Callable[[], None]) -> Callable[[], None]:
        """Run `launch` once, record it, and return what replays it."""

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Start copying into a tensor on the device."""

    def run(self, work: Callable[[], Tensor]) -> Tensor:
        """Run `work` between what the caller has started and what it starts next."""


@contextmanager
def steady_math() -> Iterator[None]:
    """Arithmetic that is the same in every process on the same GPU: float32 without TF32, no race between algorithms.

    cuDNN could time its algorithms for every shape and keep the fastest (`benchmark`). Rows would still not see each
    other, but the winner of a race changes from process to process, and with it the last bits of an image: a resumed
    run, or another rank, would make other images than the first. Its heuristics choose the same algorithm every time.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


class PlainProgram:
    """Calls the module every time: on the CPU, and on a GPU for what runs once per image or less."""

    def __init__(self, module: Any, device: torch.device) -> None:
        """Keep a module that lies on `device`."""
        self._module, self._device = module, device

    def __call__(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Run the module; inputs may lie anywhere."""
        inputs = {name: tensor.to(self._device) for name, tensor in tensors.items()}
        with torch.no_grad(), steady_math():
            return self._module(**inputs)


class RecordedProgram:
    """The module as a CUDA graph over tensors at fixed addresses: a thousand launches become one."""

    def __init__(self, module: Any, part: Component, rows: int, stream: Stream) -> None:
        """Allocate the inputs; the first call compiles what is to be compiled, warms up and records.

        Args:
            module: lies on the stream's device; waits for nothing while it runs.
            part: names, dtypes and shapes.
            rows: of every execution.
            stream: where it runs.
        """
        shapes = {spec.name: ((rows, *spec.shape), getattr(torch, spec.dtype)) for spec in part.inputs}
        self._buffers = {
            name: torch.zeros(shape, dtype=dtype, device=stream.device) for name, (shape, dtype) in shapes.items()
        }
        self._module, self._stream = module, stream
        self._replay: Callable[[], None] | None = None
        self._output: Tensor | None = None

    def __call__(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Copy the inputs in, replay, and return a copy of the output, which the next call leaves alone."""
        # Recorded tensors outlive the caller's inference mode, in which they could not be written to outside of it.
        with torch.inference_mode(False), torch.no_grad(), steady_math():
            if self._replay is None:
                self._replay = self._stream.record(self._launch)
            return self._stream.run(lambda: self._step(tensors))

    def _launch(self) -> None:
        self._output = self._module(**self._buffers)

    def _step(self, tensors: Mapping[str, Tensor]) -> Tensor:
        assert self._replay is not None and self._output is not None
        for name, tensor in tensors.items():
            self._stream.copy(self._buffers[name], tensor)
        self._replay()
        return self._output.clone()
