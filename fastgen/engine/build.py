"""Model folder -> engine folder: load, fuse, export, compare, publish."""

import platform
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fastgen import __version__
from fastgen.engine.embeddings import parse_embeddings
from fastgen.engine.load import check_provider, computes_on_gpu
from fastgen.engine.lora import parse_loras
from fastgen.engine.model import load_model
from fastgen.engine.model_files import Sources, find_sources
from fastgen.engine.room import Options, check_room
from fastgen.engine.spec import BACKENDS, PRECISIONS, SPEC_FILE, read_spec, verify_files
from fastgen.errors import EngineError, FastgenError, OutputError
from fastgen.files import atomic_directory, sha256_file, sha256_json
from fastgen.lock import file_lock

ENGINES = Path("engines")
MAX_BATCH = 1024
NAMED_WORDS = 3
"""Most textual-inversion words that an engine's folder is named after."""
PACKAGES = {
    "onnxruntime": ("torch", "diffusers", "transformers", "peft", "onnx", "onnxscript", "onnxruntime"),
    "openvino": ("torch", "diffusers", "transformers", "peft", "onnx", "onnxscript", "openvino"),
    "tensorrt": ("torch", "diffusers", "transformers", "peft", "onnx", "onnxscript"),
    "torch": ("torch", "diffusers", "transformers", "peft"),
}
"""Backend -> packages whose versions can change what a build makes; TensorRT's own is part of EngineSpec.plan."""

WRITERS = ("adapters", "assemble", "components", "export", "fusion", "precision", "projection", "translations")
"""Modules beside this one that decide how a graph is written: a graph of older code is not up to date."""

COMPILERS = ("triton",)
"""Packages that make the kernels of a compiled torch engine, beside torch."""


def build(
    model: str | Path = "mini",
    *,
    config: str | Path | None = None,
    vae: str | Path | None = None,
    ip_adapter: str | Path | None = None,
    lora: Sequence[str] = (),
    embedding: Sequence[str] = (),
    backend: str = "onnxruntime",
    precision: str = "fp32",
    compile: bool = False,
    batch: int = 8,
    size: int | None = None,
    provider: str = "auto",
    out: str | Path | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Build an engine, or find out that it is built already.

    Args:
        model: an embedded model's name, a folder in diffusers layout, a hub id, or a single-file checkpoint.
        config: for a checkpoint: folder or hub id of the model that its configs and tokenizer come from.
        vae: folder or hub id of a VAE that replaces the model's own.
        ip_adapter: a base or plus IP-Adapter file; None takes the one in the model folder, if there is exactly one.
        lora: NAME=PATH or NAME=PATH@SCALE, fused into the weights in this order.
        embedding: NAME=PATH, textual-inversion words for prompts; or a folder: `cat.safetensors` is the word `<cat>`.
        backend: one of BACKENDS.
        precision: one of PRECISIONS: what the components compute in; inputs and outputs stay float32.
        compile: run UNet and VAE decoder through torch.compile; for the torch backend. Faster on a GPU, and compiled
            anew by every process that loads the engine, unless torch finds the kernels in its cache.
        batch: rows of every execution.
        size: side of the square images in pixels; None takes the model's own.
        provider: where ONNX Runtime computes when the engine is compared with the model: "auto", "cpu" or "cuda". It
            changes no file of the engine but the numbers of the comparison, so it is no reason to build again.
        out: the engine folder; None names it after the model and the options, in `engines/`. An engine that was
            built from something else gives way.
        say: gets one line per step.

    Returns:
        The engine folder.

    Raises:
        EngineError: an option is not allowed, this machine lacks what the backend needs, memory or disk space among it,
            or the finished engine differs from the model (nothing is written).
        ModelError: the model, VAE, adapter, LoRA or embedding cannot be used.
        OutputError: `out` cannot be written, or holds something that is no engine.
    """
    _check_options(backend, precision, compile, batch, size)
    check_provider(provider, backend)
    if backend == "openvino":
        from fastgen.engine.openvino_backend import require_openvino

        require_openvino(precision)
    plan = _plan(backend, compile)
    loras, embeddings = parse_loras(lora), parse_embeddings(embedding)
    places = {"config": config, "vae": vae, "ip_adapter": ip_adapter}
    sources = find_sources(model, **places, loras=loras, embeddings=embeddings)
    defaults = sources.defaults()
    options: dict[str, Any] = {"backend": backend, "precision": precision, "batch": batch}
    options["size"] = size or defaults["size"]
    inputs = {**sources.to_json(), **options, **_environment(backend, compile), "plan": plan}
    folder = Path(out) if out is not None else ENGINES / engine_name(sources, compile=compile, **options)
    once = {"model": model, **places, **options, "compile": compile, "out": out}
    once["provider"] = None if provider == "auto" else provider
    command = _command(once, {"lora": lora, "embedding": embedding})
    differing = _difference(folder, inputs)
    if differing != "":
        waiting = f"{folder} is being built by another process; waiting for it"
        with file_lock(folder.with_name(f".{folder.name}.lock"), on_wait=lambda: say(waiting)):
            differing = _difference(folder, inputs)  # whoever held the lock may have built it
            if differing != "":
                if differing is not None:
                    say(f"{folder} is built again: {differing}")
                room = Options(**options, on_gpu=computes_on_gpu(backend, provider))
                check_room(sources, folder, room)
                return _build(folder, sources, inputs=inputs, command=command, provider=provider, say=say)
    say(f"{folder} is up to date: it was built from the same files with the same options")
    return folder


def _build(
    folder: Path,
    sources: Sources,
    *,
    inputs: dict[str, Any],
    command: str,
    provider: str,
    say: Callable[[str], None],
) -> Path:
    """Load, fuse, export, compare and publish; returns the folder."""
    from fastgen.engine.assemble import fill_folder

    say(f"loading {sources.id}")
    loaded = load_model(sources)
    with atomic_directory(folder, replace=True) as tmp:
        spec = fill_folder(tmp, loaded, sources=sources, inputs=inputs, name=folder.name, provider=provider, say=say)
        replace(spec, build_command=command).write(tmp)
    say(f"{folder} is ready, fingerprint {spec.fingerprint[:12]}")
    return folder


def _command(once: Mapping[str, Any], repeated: Mapping[str, Sequence[str]]) -> str:
    """Return the shell command that says the same as the arguments of `build`; None and False are left out."""
    words = ["fastgen", "build"]
    for name, value in once.items():
        if value is not None and value is not False:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    for name, values in repeated.items():
        for value in values:
            words += [f"--{name}", value]
    return shlex.join(words)


def engine_name(sources: Sources, *, backend: str, precision: str, compile: bool, batch: int, size: int) -> str:
    """Return for example `mini-onnxruntime-fp32-b8-s64`, with LoRA and embedding names after the model's.

    Of many embeddings it names the number and a hash: file names are not that long.
    """
    learned = [embedding.name for embedding in sources.embeddings]
    if len(learned) > NAMED_WORDS:
        content = sha256_json([embedding.to_json() for embedding in sources.embeddings])
        learned = [f"{len(learned)}-words-{content[:8]}"]
    added = [*(lora.name for lora in sources.loras), *learned]
    words = [sources.id.replace("/", "--"), *added, backend, precision, *(["compiled"] if compile else [])]
    return re.sub(r"[^\w.-]", "_", "-".join([*words, f"b{batch}", f"s{size}"]))


def _difference(folder: Path, inputs: dict[str, Any]) -> str | None:
    """Why the engine at `folder` must be built again; "" when it need not be, None when there is none.

    Raises:
        OutputError: the folder is no engine and not empty.
    """
    if not folder.exists():
        return None
    if not (folder / SPEC_FILE).is_file():
        if folder.is_dir() and not any(folder.iterdir()):
            return None
        raise OutputError(f"{folder} exists and is no engine; remove it or choose another name")
    try:
        spec = read_spec(folder)
        verify_files(folder, spec)
    except FastgenError as error:
        return str(error)
    built = spec.inputs()
    return ", ".join(f"other {key}" for key in inputs if inputs[key] != built[key])


def _environment(backend: str, compile: bool) -> dict[str, Any]:
    """The opset and versions of everything that takes part in a build, of the code that writes graphs its hash."""
    from fastgen.engine.export import OPSET

    versions = {"fastgen": __version__, "python": platform.python_version()}
    if backend != "torch":
        own = Path(__file__).parent
        versions["fastgen.engine"] = sha256_json([sha256_file(own / f"{name}.py") for name in WRITERS])[:12]
    for package in (*PACKAGES[backend], *(COMPILERS if compile else ())):
        for name in (package, f"{package}-gpu"):
            try:
                versions[name] = version(name)
                break
            except PackageNotFoundError:
                continue
    return {"opset": OPSET if backend != "torch" else None, "versions": versions}


def _plan(backend: str, compile: bool) -> dict[str, Any] | None:
    """What plans built here and now are for, or how torch compiles; None for what runs as it is.

    Raises:
        EngineError: no GPU or no TensorRT.
    """
    if backend == "tensorrt":
        from fastgen.engine.tensorrt_build import build_options
        from fastgen.engine.tensorrt_platform import describe_platform, require_tensorrt

        return {**describe_platform(require_tensorrt()), **build_options()}
    if compile:
        from fastgen.engine.torch_backend import compile_plan

        return compile_plan()
    return None


def _check_options(backend: str, precision: str, compile: bool, batch: int, size: int | None) -> None:
    if backend not in BACKENDS:
        raise EngineError(f"backend: got {backend!r}, allowed: {', '.join(BACKENDS)}")
    if precision not in PRECISIONS:
        raise EngineError(f"precision: got {precision!r}, allowed: {', '.join(PRECISIONS)}")
    if precision == "bf16" and backend == "onnxruntime":
        raise EngineError("precision bf16: ONNX Runtime cannot compute in it; take fp32, fp16 or another --backend")
    if precision == "fp16" and backend == "openvino":
        raise EngineError("precision fp16: OpenVINO computes on the CPU, which is for fp32 and bf16; take one of them")
    if compile and backend != "torch":
        raise EngineError(f"compile: got it with the backend {backend}, allowed: torch; add --backend torch")
    if not 1 <= batch <= MAX_BATCH:
        raise EngineError(f"batch: got {batch}, allowed: 1 to {MAX_BATCH}")
    if size is not None and size < 1:
        raise EngineError(f"size: got {size}, allowed: a side in pixels, for example 512")
