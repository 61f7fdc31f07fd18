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
        ModelError: the file is missing or not a weight file.
    """
    if not path.is_file():
        raise ModelError(f"{what} file {path} does not exist; give a .safetensors or .bin file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        import torch

        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise many unrelated types
        raise ModelError(f"{what} file {path} cannot be read as weights: {error}") from error
    if not isinstance(content, Mapping):
        raise ModelError(f"{what} file {path} cannot be read as weights: it holds a {type(content).__name__}")
    return dict(content)


def _kinds(folder: Path) -> dict[tuple[bool, bool], list[Path]]:
    """(half precision, safetensors) -> weight files of that kind, with the index of split ones."""
    kinds: dict[tuple[bool, bool], list[Path]] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        found = WEIGHT_FILE.fullmatch(path.name)
        if found and path.is_file():
            kinds.setdefault((bool(found["half"]), found["format"] == "safetensors"), []).append(path)
    return kinds
