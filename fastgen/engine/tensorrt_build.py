"""ONNX graphs -> TensorRT plans, through TensorRT's own Python interface."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastgen.engine.gpu import current_gpu
from fastgen.engine.ort_backend import GRAPHS
from fastgen.engine.spec import Component
from fastgen.engine.tensorrt_operators import check_graph
from fastgen.engine.tensorrt_platform import PLANS, describe_platform, make_logger
from fastgen.engine.tensorrt_progress import BuildProgress
from fastgen.errors import EngineError, OutputError
from fastgen.files import atomic_write_bytes

OPTIMIZATION_LEVEL = 3
"""TensorRT's default; 4 and 5 take many times longer to build."""

LOOP = "unet"
"""The component that the denoising loop calls."""


def build_plans(
    trt: Any,
    folder: Path,
    parts: Mapping[str, Component],
    *,
    precisions: Mapping[str, str],
    batch: int,
    say: Callable[[str], None],
) -> None:
    """Build a plan for every component of an engine.

    Args:
        trt: from `tensorrt_platform.require_tensorrt`.
        folder: the engine, which has its `onnx/NAME.onnx`; `tensorrt/NAME.plan` are written.
        parts: name -> Component.
        precisions: name -> what its graph computes in.
        batch: rows of every execution; the profile allows no other number.
        say: gets one line per step.

    Raises:
        EngineError: TensorRT cannot take a graph (found out before the first plan is built), or fails to build one.
    """
    graphs = {name: folder / GRAPHS / f"{name}.onnx" for name in parts}
    for name, part in parts.items():
        check_graph(graphs[name], part, loop=name == LOOP, precision=precisions[name])
    cache = timing_cache_path(describe_platform(trt))
    (folder / PLANS).mkdir()
    for name, part in parts.items():
        say(f"building the TensorRT plan of {name}; this takes minutes for a large model")
        with BuildProgress(name) as progress:
            plan = build_plan(trt, graphs[name], part, batch=batch, cache=cache, progress=progress, say=say)
        (folder / PLANS / f"{name}.plan").write_bytes(plan)


def build_plan(
    trt: Any,
    graph: Path,
    part: Component,
    *,
    batch: int,
    cache: Path,
    progress: BuildProgress,
    say: Callable[[str], None],
) -> bytes:
    """Build one plan: types as in the graph, one profile with one batch size.

    Args:
        trt: the `tensorrt` module.
        graph: ONNX file, its external data beside it.
        part: its tensors.
        batch: rows of every execution.
        cache: file of measured kernel times; read if there, and written.
        progress: shows what the builder does.
        say: gets a line if the cache is of no use.

    Returns:
        The serialized plan.

    Raises:
        EngineError: TensorRT refuses the graph or finds no kernels for it.
    """
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network()  # since TensorRT 11 every network is strongly typed
    _parse(trt, network, graph, logger)
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for spec in part.inputs:
        shape = (batch, *spec.shape)
        profile.set_shape(spec.name, shape, shape, shape)
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"TensorRT does not accept the shapes of {graph.name} for batch {batch}{logger.reason()}")
    _configure(trt, config)
    timings = _attach_timing_cache(config, cache, say)
    monitor = config.progress_monitor = progress.monitor(trt)
    plan = builder.build_serialized_network(network, config)
    if monitor.interrupted:
        raise KeyboardInterrupt
    if plan is None:
        raise EngineError(f"TensorRT could not build {graph.name} for batch {batch}{logger.reason()}")
    _keep_timings(config, cache, say)
    del timings, monitor  # they had to outlive the build
    return bytes(plan)


def build_options() -> dict[str, Any]:
    """What `_configure` sets, for `EngineSpec.plan`."""
    return {"optimization_level": OPTIMIZATION_LEVEL, "tf32": False}


def timing_cache_path(platform: Mapping[str, str]) -> Path:
    """Return the file of kernel times for this TensorRT and GPU, below $FASTGEN_CACHE or ~/.cache/fastgen."""
    folder = Path(os.environ.get("FASTGEN_CACHE") or Path.home() / ".cache" / "fastgen")
    words = (platform["tensorrt"], platform["gpu"], f"sm{platform['compute_capability']}")
    return folder / "tensorrt" / (re.sub(r"[^\w.-]", "_", "-".join(words)) + ".timing")


def _parse(trt: Any, network: Any, graph: Path, logger: Any) -> None:
    """Read a graph into a network.

    Raises:
        EngineError: with everything that the parser says.
    """
    parser = trt.OnnxParser(network, logger)
    if parser.parse_from_file(str(graph)):
        return
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    lines = [f"  {error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors]
    raise EngineError("\n".join([f"TensorRT cannot read {graph.name}{logger.reason()}", *lines]))


def _configure(trt: Any, config: Any) -> None:
    """Exact float32, the same operations for every row, at most half of the GPU's memory for scratch space."""
    config.builder_optimization_level = OPTIMIZATION_LEVEL
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default; it would lose the parity gate
    config.set_flag(trt.BuilderFlag.DISTRIBUTIVE_INDEPENDENCE)
    gpu = current_gpu()
    assert gpu is not None, "require_tensorrt comes first"
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, gpu.memory // 2)


def _attach_timing_cache(config: Any, path: Path, say: Callable[[str], None]) -> Any:
    """Give the builder the kernel times of earlier builds; returns the cache, which must live as long as the build."""
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    timings = config.create_timing_cache(data)
    if timings is not None and config.set_timing_cache(timings, ignore_mismatch=False):
        return timings
    say(f"the timing cache {path} is damaged or from another machine; kernels are measured anew")
    timings = config.create_timing_cache(b"")
    config.set_timing_cache(timings, ignore_mismatch=False)
    return timings


def _keep_timings(config: Any, path: Path, say: Callable[[str], None]) -> None:
    """Write the kernel times for the next build; a folder that cannot be written costs only time."""
    try:
        atomic_write_bytes(path, bytes(config.get_timing_cache().serialize()))
    except OutputError as error:
        say(f"the timing cache was not kept: {error}")
