"""Weight files: which of a folder's are loaded, and reading one file without running code that may be in it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastgen.errors import ModelError

WEIGHT_FILE = re.compile(
    r"(diffusion_pytorch_model|pytorch_model|model)(?P<half>\.fp16)?(-\d+-of-\d+)?"
    r"\.(?P<format>safetensors|bin)(\.index\.json)?"
)
OTHER_WEIGHTS = {".safetensors", ".bin", ".msgpack", ".h5", ".onnx", ".onnx_data", ".pb", ".pt", ".ckpt", ".xml"}
LOAD_OPTIONS: dict[tuple[bool, bool], dict[str, Any]] = {
    (False, True): {},
    (True, True): {"variant": "fp16"},
    (False, False): {"use_safetensors": False},
    (True, False): {"variant": "fp16", "use_safetensors": False},
}
"""(half precision, safetensors) of a folder's weight files -> arguments of `from_pretrained`; the first that is there
is loaded. A `.bin` is read by the libraries with weights_only, so no code in it can run."""


def load_options(folder: Path) -> dict[str, Any]:
    """Say how to load a part's folder with `from_pretrained`: full precision first, then the fp16 variant.

    Args:
        folder: of one part in diffusers layout; one without weights (a tokenizer) needs no options.
    """
    there = _kinds(folder)
    return next((options for kind, options in LOAD_OPTIONS.items() if kind in there), {})


def load_part(kind: Any, folder: Path | None) -> Any:
    """Load one part with its class's `from_pretrained`, never from the network.

    Raises:
        ModelError: it cannot be loaded.
    """
    options = load_options(folder) if folder is not None else {}
    try:
        return kind.from_pretrained(str(folder), local_files_only=True, **options)
    except Exception as error:  # the libraries raise many unrelated types
        raise ModelError(f"{folder} cannot be loaded as {kind.__name__}: {error}") from error


def weight_files(folder: Path) -> list[Path]:
    """Return the files that `load_options` loads, sorted; none when the folder has no weights or does not exist."""
    there = _kinds(folder)
    return sorted(next((there[kind] for kind in LOAD_OPTIONS if kind in there), []))


def part_files(folder: Path) -> list[str]:
    """Names of the files in a part's folder that decide what is loaded: no other variants, no other formats."""
    small = [p for p in folder.iterdir() if p.is_file() and p.suffix not in OTHER_WEIGHTS and ".index." not in p.name]
    return sorted(p.name for p in [*weight_files(folder), *small] if not p.name.startswith("."))


def read_weights(path: Path, what: str) -> dict[str, Any]:
    """Read a weight file as the mapping that it holds, on the CPU.

    Args:
        path: `.safetensors`, or anything that torch.save wrote (read with weights_only, so no code in it can run).
        what: the file's purpose, for messages.

    Raises:
        ModelError: the file is missing, not a weight file, or some of its numbers are not finite.
    """
    if not path.is_file():
        raise ModelError(f"{what} file {path} does not exist; give a .safetensors or .bin file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            import torch

            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise many unrelated types
        raise ModelError(f"{what} file {path} cannot be read as weights: {_first_line(error)}") from error
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise ModelError(f"{what} file {path} cannot be read as weights: it holds a {type(content).__name__}")
    if broken := _not_finite(content):
        raise ModelError(f"{what} file {path} holds NaN or infinity in {broken}; it is damaged: get another copy")
    return dict(content)


def _first_line(error: Exception) -> str:
    """Of an error; what torch says below it is advice to load files that may run code."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _not_finite(content: Mapping[Any, Any], prefix: str = "") -> str:
    """Name of the first tensor that is not finite, also in nested mappings; "" if there is none."""
    import torch

    for name, value in content.items():
        if isinstance(value, Mapping):
            if found := _not_finite(value, f"{prefix}{name}."):
                return found
        elif isinstance(value, torch.Tensor) and value.is_floating_point() and not value.float().isfinite().all():
            return f"{prefix}{name}"
    return ""


def _kinds(folder: Path) -> dict[tuple[bool, bool], list[Path]]:
    """(half precision, safetensors) -> weight files of that kind, with the index of split ones."""
    kinds: dict[tuple[bool, bool], list[Path]] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        found = WEIGHT_FILE.fullmatch(path.name)
        if found and path.is_file():
            kinds.setdefault((bool(found["half"]), found["format"] == "safetensors"), []).append(path)
    return kinds
