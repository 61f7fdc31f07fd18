"""What a contender's process can say of the GPU it is on: memory, times of the heavy parts, kernels, ceilings."""

import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from bench.peers import Contender
    from fastgen.engine.load import Engine

KERNELS_LISTED = 60
SIDE = 8192
"""Of the square matrices whose product is the ceiling."""


def memory() -> dict[str, int]:
    """Most memory that PyTorch had of the GPU in this process since `share`, MiB; nothing without a GPU."""
    return {"gpu_memory_mib": torch.cuda.max_memory_reserved() >> 20} if torch.cuda.is_available() else {}


def share() -> None:
    """Give memory that a warm-up took and nothing holds back to the GPU, for the others on it."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def parts(engine: "Engine") -> dict[str, Any]:
    """Milliseconds of one execution of UNet and VAE decoder at the engine's batch, by the host's clock."""
    from fastgen.engine.parity import example_inputs

    found: dict[str, Any] = {"batch": engine.spec.batch}
    for name in ("unet", "vae_decoder"):
        part = engine.spec.components[name]
        inputs = example_inputs(part, rows=engine.spec.batch, vocabulary=1)
        on_device = {key: value.to(engine.device) for key, value in inputs.items()}
        found[f"{name}_ms"] = round(1000 * seconds_of(partial(engine.run, name, on_device)), 3)
    return found


def seconds_of(work: Callable[[], Any], *, repeats: int = 5) -> float:
    """Median seconds of `work`, each waited for."""
    times = []
    for _ in range(repeats + 1):
        _wait()
        start = time.perf_counter()
        work()
        _wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def ceiling() -> dict[str, float]:
    """TFLOP/s of one large fp16 matrix product and GB/s of a large copy (bytes read and written), on random data."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    side, dtype = (SIDE, torch.float16) if device.type == "cuda" else (SIDE // 16, torch.float32)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    long = torch.randn(8 * side * side, device=device)
    other = torch.empty_like(long)
    product, copy = seconds_of(lambda: a @ b), seconds_of(lambda: other.copy_(long))
    return {
        "matmul_tflops": round(2 * side**3 / product / 1e12, 2),
        "copy_gb_per_second": round(2 * long.nbytes / copy / 1e9, 1),
    }


def attention() -> dict[str, dict[str, float]]:
    """Milliseconds of PyTorch's attention kernels for the layers of Stable Diffusion 1.5 at 512 x 512, 32 rows, fp16.

    Returns:
        "queries x keys x width of a head" -> kernel -> milliseconds; a kernel that does not take the shape is left
        out; keys "77+4" are text and image together, by fastgen's kernel or two of PyTorch's. Nothing without a GPU.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from fastgen.engine.row_attention import MAX_HEAD, attend_to_both

    kernels = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
    kernels |= {"efficient": SDPBackend.EFFICIENT_ATTENTION}
    found: dict[str, dict[str, float]] = {}
    if not torch.cuda.is_available():
        return found
    for queries, width in ((4096, 40), (1024, 80), (256, 160)):
        for keys in (queries, 77, 4):
            q, k, v = (
                torch.randn(32, length, 8, width, device="cuda", dtype=torch.float16).transpose(1, 2)
                for length in (queries, keys, keys)
            )
            for name, kernel in kernels.items():
                with sdpa_kernel(kernel), suppress(RuntimeError):
                    took = seconds_of(partial(torch.nn.functional.scaled_dot_product_attention, q, k, v))
                    found.setdefault(f"{queries}x{keys}x{width}", {})[name] = round(1000 * took, 4)
        parts = [torch.randn(32, n, 8 * width, device="cuda", dtype=torch.float16) for n in (queries, 77, 77, 4, 4)]
        weights = torch.rand(32, device="cuda")
        both = {"two calls": partial(_attend_twice, *parts, weights)}
        if width <= MAX_HEAD:
            both["one kernel"] = partial(attend_to_both, *parts, weights, heads=8)
        found[f"{queries}x77+4x{width}"] = {name: round(1000 * seconds_of(work), 4) for name, work in both.items()}
    return found


def _attend_twice(query: Any, key: Any, value: Any, image_key: Any, image_value: Any, ip_scale: Any) -> Any:
    from fastgen.engine.adapters import attention

    image_value = image_value * ip_scale.to(image_value.dtype)[:, None, None]
    return attention(query, key, value, heads=8) + attention(query, image_key, image_value, heads=8)


def profile(contender: "Contender", path: Path) -> str:
    """Write a table of the kernels of one batch drawn in two steps; returns the file's name."""
    from torch.profiler import ProfilerActivity

    steps, contender.work["steps"] = contender.work["steps"], 2
    kinds = [ProfilerActivity.CUDA] if torch.cuda.is_available() else [ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds) as found:
        contender.draw(contender.work["rows"][: contender.work["batch"]])
    contender.work["steps"] = steps
    by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    table = found.key_averages().table(sort_by=by, row_limit=KERNELS_LISTED, max_name_column_width=110)
    path.write_text(table + "\n")
    return path.name


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
