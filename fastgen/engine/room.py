"""The memory and disk space that a build needs, estimated from the headers of the weight files before it starts.

Measured as the peak of the process above that of the imported libraries, in builds of two random models with the
layers of Stable Diffusion 1.5 and fewer channels (261 and 986 MiB of float32 weights), 64 pixels, batch 1, on a CPU:

    onnxruntime fp32    739 and 2228 MiB    2.05 times the weights, and 200 MiB
    onnxruntime fp16   1026 and 3288 MiB    3.1 times the weights, and 200 MiB
    torch fp32                  1992 MiB    2.0 times the weights
    torch fp16                  2899 MiB    2.9 times the weights

The weights are there once in the model that is compared with, once in the engine, and about once more as copies in
half precision (bf16 makes the same ones as fp16; of it only OpenVINO was measured: 20.0 GiB for Stable Diffusion 1.5's
shapes at 256 pixels and batch 4, where 20.4 are estimated. TensorRT was not). At 256 pixels and batch 4 the
build of the small model took 1367 MiB (onnxruntime) and 319 MiB (torch, above twice the weights) more, for what passes
between the layers; ONNX Runtime keeps what each component once took. The factors below give 768 and 256 MiB for that:
they are meant as what a build needs at least, so that one is refused only where it could not succeed. At 512 pixels and
with the default batch that is extrapolated, not measured. Since then, float32 attention is fused and ONNX Runtime's VAE
works on a few images at once on a CPU: less is counted for both, and was not measured again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from fastgen.capacity import free_disk, free_memory, size_text
from fastgen.engine.model_files import PARTS, Sources, read_json
from fastgen.engine.ort_backend import PIECE_PIXELS
from fastgen.engine.weights import weight_files
from fastgen.errors import EngineError

LIBRARIES = 838 << 20
"""PyTorch, diffusers and the exporter."""

COPIES = {"fp32": 2.0, "fp16": 2.9, "bf16": 2.9}
"""Precision -> how many times the float32 weights are in memory."""

VAE_LAYERS, VAE_LAYERS_ORT = 8, 8
"""Tensors of the image's size and the VAE's first width: in the model, and in ONNX Runtime's decoder, which keeps them
while the encoder is compared."""

SCORES_ORT = 2
"""Tensors of attention scores in the UNet's largest attention: in half precision it is not fused (see `fusion`)."""

GRAPHS = 16 << 20
"""Bytes of graphs, tokenizer and the like on the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What decides how much a build takes.

    Attributes:
        backend, precision: as in `build`.
        batch: rows of every execution.
        size: side of the images in pixels.
        on_gpu: the engine computes on a GPU, with that one's memory.
    """

    backend: str
    precision: str
    batch: int
    size: int
    on_gpu: bool


def memory_needed(sources: Sources, options: Options) -> float:
    """Bytes of main memory that a build takes at its peak, at least."""
    layer, scores = _activations(sources, options.size)
    rows = 0 if options.on_gpu else VAE_LAYERS * layer
    pieces = 0
    if options.backend == "onnxruntime" and not options.on_gpu:
        rows += SCORES_ORT * scores if options.precision != "fp32" else 0
        pieces = min(options.batch, max(1, PIECE_PIXELS // options.size**2)) * VAE_LAYERS_ORT * layer
    return LIBRARIES + COPIES[options.precision] * 4 * count_weights(sources) + options.batch * rows + pieces


def disk_needed(sources: Sources, options: Options) -> float:
    """Bytes of the finished engine; an engine that it replaces lies there until then."""
    full = options.precision == "fp32" or options.backend == "openvino"
    weights = (4 if full else 2) * count_weights(sources)
    return (2 if options.backend == "tensorrt" else 1) * weights + GRAPHS


def check_room(sources: Sources, folder: Path, options: Options) -> None:
    """Refuse a build that cannot fit.

    Args:
        sources: what is built.
        folder: where to.
        options: of the build.

    Raises:
        EngineError: there is too little memory or disk space; says how much there is and which options need less.
    """
    problems = []
    memory, free = memory_needed(sources, options), free_memory()
    if free is not None and memory > free:
        fits = [
            f"{words} needs {size_text(less)}"
            for words, other in _smaller(options)
            if (less := memory_needed(sources, other)) <= free
        ]
        remedy = " and ".join(fits) or "build on a machine with more and copy the folder"
        problems.append(f"about {size_text(memory)} of memory, {size_text(free)} are free: {remedy}")
    disk, space = disk_needed(sources, options), free_disk(folder)
    if disk > space:
        half = disk_needed(sources, replace(options, precision="fp16"))
        remedy = f"--precision fp16 needs {size_text(half)}, or " if half <= space and half < disk else ""
        problems.append(
            f"about {size_text(disk)} of disk space, {size_text(space)} are free where {folder} will be: {remedy}take "
            "another disk with --out"
        )
    if problems:
        raise EngineError(f"building {sources.id} needs " + "; and ".join(problems))


def count_weights(sources: Sources) -> int:
    """Number of weights in all files that a build loads."""
    files = [sources.checkpoint] if sources.checkpoint is not None else []
    if sources.checkpoint is None:
        folders = [sources.folder / part for part in PARTS if part != "vae" or sources.vae is None]
        files += [file for folder in folders for file in weight_files(folder)]
    for extra in (sources.vae, sources.image_encoder):
        files += weight_files(extra) if extra is not None else []
    files += [sources.adapter] if sources.adapter is not None else []
    return sum(map(_count, files))


def _count(file: Path) -> int:
    """Number of weights in a file: exactly for safetensors, else from its size; an average that is not loaded aside."""
    if file.name.endswith(".index.json"):
        return 0
    if file.suffix == ".safetensors":
        return sum(_shapes(file))
    return file.stat().st_size // (2 if ".fp16." in file.name else 4)


def _shapes(file: Path) -> Iterator[int]:
    from safetensors import safe_open

    with safe_open(file, "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 (no mapping)
            if not name.startswith("model_ema."):
                yield prod(tensors.get_slice(name).get_shape())


def _activations(sources: Sources, size: int) -> tuple[int, int]:
    """Bytes per row of a tensor of the VAE at the image's size, and of the scores of the UNet's largest attention."""
    vae = read_json((sources.vae or sources.folder / "vae") / "config.json")
    unet = read_json(sources.folder / "unet" / "config.json")
    widths = vae.get("block_out_channels", [64])
    kinds = unet.get("down_block_types", [])
    level = next((i for i, kind in enumerate(kinds) if "CrossAttn" in kind), len(kinds))
    heads = unet.get("num_attention_heads") or unet.get("attention_head_dim", 8)  # diffusers reads both as a number
    heads = heads[level] if isinstance(heads, list) else heads
    tokens = (size // 2 ** (len(widths) - 1 + level)) ** 2
    return 4 * widths[0] * size**2, 4 * heads * tokens**2


def _smaller(options: Options) -> Iterator[tuple[str, Options]]:
    """Options that need less memory, as they are typed."""
    if options.batch > 1:
        yield "--batch 1", replace(options, batch=1)
    if options.backend == "onnxruntime" and not options.on_gpu:
        yield "--backend torch", replace(options, backend="torch")
