"""Textual-inversion embeddings: words that stand for learned vectors, added to tokenizer and text encoder at build.

A word with n vectors becomes n tokens, `<cat>`, `<cat>_1`, ..., as in diffusers; a prompt says only `<cat>`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastgen.engine.weights import read_weights
from fastgen.errors import ModelError
from fastgen.files import sha256_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """One word to add.

    Attributes:
        name: the word as prompts write it, and what bank rows call it.
        path: a file in diffusers' format ({word: vectors}) or A1111's (`emb_params` or `string_to_param`).
    """

    name: str
    path: Path

    def to_json(self) -> dict[str, Any]:
        """Return {"name", "file", "sha256"}."""
        return {"name": self.name, "file": self.path.name, "sha256": sha256_file(self.path)}

    def read(self) -> Tensor:
        """Read its vectors, float32 (n, D); the word that the file itself names is not used.

        Raises:
            ModelError: the file holds anything but one tensor of vectors.
        """
        state = read_weights(self.path, f"embedding {self.name}:")
        nested = state.get("string_to_param")
        state = dict(nested) if isinstance(nested, Mapping) else state
        tensors = [value for value in state.values() if isinstance(value, Tensor)]
        if len(tensors) != 1 or tensors[0].ndim not in (1, 2) or not tensors[0].numel():
            found = ", ".join(sorted(map(str, state))) or "nothing"
            raise ModelError(
                f"embedding {self.name}: {self.path} holds {found}; needed is one "
                "tensor of vectors (clip_g and clip_l are of Stable Diffusion XL, which is not supported)"
            )
        return tensors[0].detach().float().reshape(-1, tensors[0].shape[-1])


def parse_embeddings(texts: Sequence[str]) -> tuple[Embedding, ...]:
    """Read NAME=PATH arguments, and folders: `cat.safetensors` in one is the word `<cat>`.

    Raises:
        ModelError: a text is not of that form, its file does not exist, or a name occurs twice or inside another.
    """
    embeddings = [embedding for text in texts for embedding in _parse(text)]
    for one, other in permutations(embeddings, 2):
        if one.name in other.name:
            raise ModelError(
                f"embedding {one.name!r} is a part of {other.name!r}, so that prompts would be ambiguous; rename one"
            )
    return tuple(embeddings)


def _parse(text: str) -> Iterator[Embedding]:
    """The words of one argument."""
    name, _, rest = text.partition("=")
    if not rest and Path(text).is_dir():
        files = sorted(Path(text).glob("*.safetensors"))
        if not files:
            raise ModelError(f"embedding {text}: this folder has no .safetensors file; one for each word is needed")
        for file in files:
            if file.stem.split() != [file.stem]:
                raise ModelError(f"embedding {file}: a word has no blanks; rename the file, or give '<word>=PATH'")
            yield Embedding(name=f"<{file.stem}>", path=file)
        return
    if not name or not rest or name.split() != [name]:
        example = "for example '<my-cat>=learned_embeds.safetensors', or a folder with one file for each word"
        raise ModelError(f"embedding {text!r}: write NAME=PATH, {example}")
    if not Path(rest).is_file():
        raise ModelError(f"embedding {name}: {rest} does not exist; give a .safetensors file")
    yield Embedding(name=name, path=Path(rest))


def add_embeddings(embeddings: Sequence[Embedding], *, tokenizer: Any, text_encoder: Any) -> None:
    """Add every embedding to the tokenizer and its vectors to the text encoder, in place.

    Args:
        embeddings: what to add.
        tokenizer: transformers.CLIPTokenizer.
        text_encoder: plain transformers CLIPTextModel.

    Raises:
        ModelError: vectors of another width, or a word that the tokenizer knows already.
    """
    width = text_encoder.get_input_embeddings().weight.shape[1]
    added: list[tuple[list[str], Tensor]] = []
    for embedding in embeddings:
        vectors = embedding.read()
        if vectors.shape[1] != width:
            raise ModelError(
                f"embedding {embedding.name}: {embedding.path} has vectors of width {vectors.shape[1]}, this text "
                f"encoder takes {width}; use one made for this base model (768: 1.x, 1024: 2.x)"
            )
        words = [embedding.name, *(f"{embedding.name}_{i}" for i in range(1, len(vectors)))]
        known = sorted(set(words) & tokenizer.get_vocab().keys())
        if known or tokenizer.add_tokens(words) != len(words):
            raise ModelError(
                f"embedding {embedding.name}: the tokenizer knows {known or words} already; "
                f"choose another name, for example '<{embedding.name}>'"
            )
        added.append((words, vectors))
    text_encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for words, vectors in added:
            text_encoder.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(words)] = vectors


def expand_prompts(prompts: Sequence[str], tokenizer: Any) -> list[str]:
    """Write out the tokens of multi-vector words: "a <cat>" becomes "a <cat> <cat>_1"; diffusers' own rule.

    Args:
        prompts: as in rows.
        tokenizer: with the words in it.
    """
    from diffusers.loaders.textual_inversion import TextualInversionLoaderMixin

    return TextualInversionLoaderMixin().maybe_convert_prompt(list(prompts), tokenizer)
