"""New words that are learnt: their vectors beside the text encoder's own, which stay untouched."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastgen.errors import ModelError
from fastgen.files import atomic_write_bytes


class WordEmbedding(nn.Module):
    """A token embedding with some more rows; only they are trained, so the others cannot change.

    Attributes:
        base: the text encoder's own nn.Embedding, frozen.
        vectors: the new rows, (n, D); token `first + i` is row i.
    """

    def __init__(self, base: nn.Embedding, vectors: Tensor, *, first: int) -> None:
        """Put the new rows behind token `first - 1`."""
        super().__init__()
        self.base, self.first = base, first
        self.vectors = nn.Parameter(vectors.clone())

    def forward(self, ids: Tensor) -> Tensor:
        """Embed token ids (B, L) as (B, L, D)."""
        new = ids >= self.first
        old = self.base(ids.clamp(max=self.first - 1))
        return torch.where(new[..., None], self.vectors[(ids - self.first).clamp(min=0)], old)


def add_words(words: Sequence[str], *, tokenizer: Any, text_encoder: Any, like: str) -> WordEmbedding:
    """Add words of one vector each to tokenizer and text encoder, in place.

    Args:
        words: as prompts write them.
        tokenizer: transformers.CLIPTokenizer.
        text_encoder: transformers CLIPTextModel.
        like: the word whose vector they start from; must be one token.

    Raises:
        ModelError: `like` is not one token, or the tokenizer knows a word already.
    """
    start = tokenizer.encode(like, add_special_tokens=False)
    if len(start) != 1:
        raise ModelError(f"--init-word {like!r} is {len(start)} tokens for this tokenizer; needed is a word of one")
    known = sorted(set(words) & tokenizer.get_vocab().keys())
    if known:
        raise ModelError(f"the tokenizer of this model knows {', '.join(known)} already; rename the class folder")
    first = len(tokenizer)
    tokenizer.add_tokens(list(words))
    base = text_encoder.get_input_embeddings()
    embedding = WordEmbedding(base, base.weight[start].detach().expand(len(words), -1), first=first)
    text_encoder.set_input_embeddings(embedding)
    return embedding


def write_words(folder: Path, vectors: Mapping[str, Tensor]) -> list[Path]:
    """Write one file per word in diffusers' textual-inversion format; its name is the word without brackets.

    Args:
        folder: made if missing.
        vectors: word -> its vector, (D,).

    Returns:
        The files: `load_textual_inversion(FILE)` and `fastgen build --embedding FOLDER` take them.
    """
    from safetensors.torch import save

    paths = []
    for word, vector in vectors.items():
        data = save({word: vector.detach().float().cpu()[None].contiguous()})
        paths.append(atomic_write_bytes(folder / f"{word.strip('<>')}.safetensors", data))
    return paths
