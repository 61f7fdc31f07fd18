"""CLIP's tokenizer from a folder as transformers 4 writes it (vocab.json, merges.txt) or 5 (tokenizer.json alone)."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from fastgen.engine.weights import load_part
from fastgen.errors import ModelError

VOCABULARY = "vocab.json"
FAST = "tokenizer.json"


def load_tokenizer(folder: Path) -> Any:
    """Return the transformers.CLIPTokenizer of a folder; the same ids from either layout.

    Raises:
        ModelError: it cannot be loaded.
    """
    from transformers import CLIPTokenizer

    if (folder / VOCABULARY).exists() or not (folder / FAST).exists():
        return load_part(CLIPTokenizer, folder)
    try:
        return _load_fast(folder)
    except (OSError, ValueError, KeyError, TypeError, ModelError) as error:
        raise ModelError(f"{folder / FAST} is not the vocabulary of a CLIP tokenizer: {error!r}") from error


def _load_fast(folder: Path) -> Any:
    """Write vocabulary and merges of a tokenizer.json as transformers 4 has them, and load that."""
    from transformers import CLIPTokenizer

    content = json.loads((folder / FAST).read_text(encoding="utf-8"))
    vocabulary, merges = content["model"]["vocab"], content["model"]["merges"]
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in merges]
    with tempfile.TemporaryDirectory(prefix="fastgen-tokenizer-") as name:
        tmp = Path(name)
        for path in folder.glob("*.json"):
            if path.name != FAST:
                shutil.copyfile(path, tmp / path.name)
        (tmp / VOCABULARY).write_text(json.dumps(vocabulary), encoding="utf-8")
        (tmp / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]) + "\n", encoding="utf-8")
        tokenizer = load_part(CLIPTokenizer, tmp)
    added = sorted(content["added_tokens"], key=lambda token: token["id"])
    tokenizer.add_tokens([token["content"] for token in added if token["content"] not in vocabulary])
    return tokenizer
