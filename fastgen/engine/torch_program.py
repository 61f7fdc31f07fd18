"""One component of the torch backend at one fixed shape: called as it is, recorded on a GPU, or shared by threads."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
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
    """Calls the module every time: for what runs once per image or less on a GPU."""

    def __init__(self, module: Any, device: torch.device) -> None:
        """Keep a module that lies on `device`."""
        self._module, self._device = module, device

    def __call__(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Run the module; inputs may lie anywhere."""
        inputs = {name: tensor.to(self._device) for name, tensor in tensors.items()}
        with torch.no_grad(), steady_math():
            return self._module(**inputs)


class ThreadedProgram:
    """The module on the CPU: whole rows for every thread, in pieces of one shape.

    PyTorch would cut each operation into as many parts as there are threads, wherever in a row that falls, and it
    computes the last few numbers of a part another way (SiLU) or sums them in another order (matrix products). With
    three threads, say, the last bits of a row would depend on its place in the batch.
    """

    def __init__(self, module: Any, rows: int, *, threads: int) -> None:
        """Start the threads.

        Args:
            module: lies on the CPU.
            rows: of every execution.
            threads: for all pieces together.
        """
        self._module, self._rows = module, rows_per_piece(rows, threads)
        workers = min(threads, rows // self._rows)
        # Pieces of one row are all the same call, however many threads that takes.
        own = threads // workers if self._rows == 1 else 1
        self._pool = ThreadPoolExecutor(workers, initializer=keep_threads, initargs=(own,))
        self._is_warm = False

    def __call__(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Run the module on every piece."""
        rows = len(next(iter(tensors.values())))
        pieces = [
            {name: tensor[start : start + self._rows].cpu() for name, tensor in tensors.items()}
            for start in range(0, rows, self._rows)
        ]
        done: list[Tensor] = []
        with steady_math():
            if not self._is_warm:  # torch.compile compiles in the first call: once, not in all threads at the same time
                done.append(self._pool.submit(self._run, pieces.pop(0)).result())
                self._is_warm = True
            return torch.cat([*done, *self._pool.map(self._run, pieces)])

    def _run(self, piece: Mapping[str, Tensor]) -> Tensor:
        with torch.inference_mode():
            return self._module(**piece)


def keep_threads(threads: int) -> None:
    """Give the calling thread a number of threads that it keeps.

    The first operation of a thread takes over the number that any thread has set last, even after it has set its own:
    a worker that had not computed yet would forget it when the main thread sets one, and give other last bits than the
    others. To ask for the number once before is enough.
    """
    torch.get_num_threads()
    torch.set_num_threads(threads)


def rows_per_piece(rows: int, threads: int) -> int:
    """Divisor of `rows` with which that many threads, a piece each at a time, are done first; the largest of these."""
    sizes = [size for size in range(1, rows + 1) if rows % size == 0]
    return min(sizes, key=lambda size: (-(-rows // size // threads) * size, -size))


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
