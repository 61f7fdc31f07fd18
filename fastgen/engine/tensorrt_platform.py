"""What plans depend on besides the graph: the TensorRT library, the GPU and its driver."""

import warnings
from typing import Any

from fastgen.engine.gpu import current_gpu
from fastgen.engine.spec import EngineSpec
from fastgen.errors import EngineError

MAJOR = 11
"""TensorRT's major version that the calls of this package are written for and checked against."""

PLANS = "tensorrt"
"""Folder of the plans inside the engine folder."""

INSTEAD = "or take --backend onnxruntime, which also runs on GPUs (CUDA) and on CPUs"
KEPT_MESSAGES = 5


def require_tensorrt() -> Any:
    """Return the `tensorrt` module of a machine that can build and run plans.

    Raises:
        EngineError: there is no NVIDIA GPU or no TensorRT 11; says what is missing and what to do.
    """
    missing = []
    if current_gpu() is None:
        missing.append("PyTorch finds no NVIDIA GPU")
    try:
        import tensorrt
    except ImportError as error:
        missing.append(f"TensorRT cannot be imported ({error}); install it: pip install 'fastgen-diffusion[tensorrt]'")
    else:
        found = tensorrt.__version__
        if int(found.split(".")[0]) != MAJOR:
            missing.append(f"got TensorRT {found}, needed is {MAJOR}: pip install 'tensorrt-cu13>={MAJOR}'")
    if missing:
        raise EngineError(f"the tensorrt backend cannot be used here: {'; '.join(missing)}; {INSTEAD}")
    return tensorrt


def describe_platform(trt: Any) -> dict[str, str]:
    """Return {"tensorrt", "gpu", "compute_capability", "driver"} of this machine, for `EngineSpec.plan`."""
    gpu = current_gpu()
    assert gpu is not None, "require_tensorrt comes first"
    return {
        "tensorrt": trt.__version__,
        "gpu": gpu.name,
        "compute_capability": gpu.compute_capability,
        "driver": gpu.driver,
    }


def check_platform(spec: EngineSpec, here: dict[str, str]) -> None:
    """Compare what an engine's plans were built for with this machine.

    A GPU of another name with the same compute capability runs the plans, maybe slower; that is a warning.

    Raises:
        EngineError: another TensorRT version or another generation of GPUs.
    """
    names = {"tensorrt": "TensorRT", "compute_capability": "compute capability"}
    built = spec.plan or {}
    different = [
        f"{words} {built.get(key)} (here: {here[key]})" for key, words in names.items() if built.get(key) != here[key]
    ]
    if different:
        raise EngineError(
            f"engine {spec.name} was built for {' and '.join(different)}; plans work with the one version and the one "
            f"generation of GPUs they were built for. Build it again here: {spec.build_command}"
        )
    if built["gpu"] != here["gpu"]:
        warnings.warn(
            f"engine {spec.name} was tuned on a {built['gpu']}, this is a {here['gpu']}; "
            f"for the full speed build it here: {spec.build_command}",
            stacklevel=2,
        )


def make_logger(trt: Any) -> Any:
    """Return a `tensorrt.ILogger` that prints nothing; `reason()` is the end of a message: its latest errors."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.errors = [*self.errors, msg.strip()][-KEPT_MESSAGES:]

        def reason(self) -> str:
            return f": {'; '.join(self.errors)}" if self.errors else ""

    return Logger()
