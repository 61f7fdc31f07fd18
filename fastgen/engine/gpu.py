"""The GPU of this process, and a stream of our own on it; what needs CUDA to run is in this file."""

import ctypes
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Gpu(NamedTuple):
    """The current GPU.

    Attributes:
        name: for example NVIDIA H100 80GB HBM3.
        compute_capability: for example 9.0.
        driver: the NVIDIA driver's version, or "unknown".
        memory: bytes.
    """

    name: str
    compute_capability: str
    driver: str
    memory: int


def current_gpu() -> Gpu | None:
    """Return the GPU that PyTorch uses now, or None without one."""
    if not torch.cuda.is_available():
        return None
    gpu = torch.cuda.get_device_properties(torch.cuda.current_device())
    return Gpu(gpu.name, f"{gpu.major}.{gpu.minor}", driver_version(), gpu.total_memory)


def driver_version() -> str:
    """Return the NVIDIA driver's version, for example 580.95.05, or "unknown"."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return "unknown"
    if nvml.nvmlInit_v2() != 0:
        return "unknown"
    text = ctypes.create_string_buffer(96)
    failed = nvml.nvmlSystemGetDriverVersion(text, ctypes.c_uint(len(text)))
    nvml.nvmlShutdown()
    return "unknown" if failed else text.value.decode()


@contextmanager
def on_gpu(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let modules work on the GPU for a while, if there is one with room for twice their weights.

    Their tensors on the CPU are kept and put back, which is faster than copying them back.

    Args:
        modules: on the CPU; may share parts.
    """
    tensors = {id(t): t for module in modules for t in (*module.parameters(), *module.buffers())}
    size = sum(tensor.nbytes for tensor in tensors.values())
    if not torch.cuda.is_available() or torch.cuda.mem_get_info()[0] < 2 * size:
        yield
        return
    kept = {key: tensor.data for key, tensor in tensors.items()}
    try:
        for tensor in tensors.values():
            tensor.data = tensor.data.cuda()
        yield
    finally:
        for key, tensor in tensors.items():
            tensor.data = kept[key]
        torch.cuda.empty_cache()


class CudaStream:
    """A non-default stream: work recorded on it once runs again in the caller's order, and nobody waits for it.

    Attributes:
        device: the GPU.
        handle: the cudaStream_t, as a number.
    """

    def __init__(self) -> None:
        """Create the stream."""
        self.device = torch.device("cuda", torch.cuda.current_device())
        self._stream = torch.cuda.Stream(self.device)
        # One memory for all recordings: they run one after the other, and nobody keeps what lies in it.
        self._pool = torch.cuda.graph_pool_handle()
        self.handle: int = self._stream.cuda_stream

    def record(self, launch: Callable[[], None]) -> Callable[[], None]:
        """Run `launch` once, then record it; returns what replays it within `run`.

        The first run, outside of the recording, lets libraries load kernels and reserve what they need.

        Args:
            launch: starts work on this stream from fixed addresses; may not wait for it.
        """
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            launch()
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            launch()
        return graph.replay

    @staticmethod
    def copy(target: Tensor, source: Tensor) -> None:
        """Start copying into a tensor on the GPU; from the host by way of pinned memory, which nobody waits for."""
        target.copy_(source if source.is_cuda else source.contiguous().pin_memory(), non_blocking=True)

    def run(self, work: Callable[[], Tensor]) -> Tensor:
        """Run `work` after everything the caller has started, and let everything the caller starts next wait for it.

        The GPU keeps the order; the host waits for nothing.

        Args:
            work: its operations go to this stream; what it returns is handed to the caller's stream.
        """
        caller = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(caller)
        with torch.cuda.stream(self._stream):
            result = work()
        caller.wait_stream(self._stream)
        result.record_stream(caller)  # its memory is free again when the caller's stream is done with it
        return result
