"""How many tokens of a prompt the text encoder reads: what is beyond them is cut off without a word."""

import gzip
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from fastgen.errors import ModelError
from fastgen.records import Row

CLIP_TOKENS = 77
"""Tokens that CLIP's text encoder reads, its two end marks among them."""

_MERGES = 49152 - 256 - 2
"""Lines of the vocabulary file that CLIP uses; the file holds more."""


class TokenLimit(NamedTuple):
    """A tokenizer and its limit.

    Attributes:
        count: number of tokens of a text, end marks included.
        limit: how many of them are read.
    """

    count: Callable[[str], int]
    limit: int


def token_limit(folder: str | Path | None = None) -> TokenLimit:
    """Load a tokenizer.

    Args:
        folder: an engine, a model in diffusers layout, or the tokenizer's own folder; None takes CLIP's
            vocabulary, which Stable Diffusion uses too and which is installed with open_clip.

    Raises:
        ModelError: the folder holds no tokenizer.
    """
    if folder is None:
        return _clip()
    places = [Path(folder) / "tokenizer", Path(folder)]
    place = next((place for place in places if (place / "tokenizer_config.json").is_file()), None)
    if place is None:
        raise ModelError(f"{folder}: holds no tokenizer_config.json, nor does its folder tokenizer; give an engine")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{place}: is no tokenizer that can be loaded ({error})") from error
    return TokenLimit(lambda text: len(tokenizer(text).input_ids), min(tokenizer.model_max_length, 10**6))


@lru_cache(maxsize=1)
def _clip() -> TokenLimit:
    """Read the vocabulary that lies in open_clip's folder; importing open_clip would load torch, for nothing."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    package = find_spec("open_clip")
    path = Path(package.origin).parent / "bpe_simple_vocab_16e6.txt.gz" if package and package.origin else None
    if path is None or not path.is_file():
        raise ModelError("open_clip is not installed with its vocabulary; give the tokenizer of an engine or a model")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        merges = [(first, second) for first, second in (line.split() for line in islice(lines, 1, _MERGES + 1))]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *(first + second for first, second in merges)]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    clip = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix="</w>", continuing_subword_prefix=""))
    clip.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    pieces = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
    clip.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pieces, "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return TokenLimit(lambda text: len(clip.encode(text).ids) + 2, CLIP_TOKENS)


def too_long(rows: Iterable[Row], prefix: str, tokens: TokenLimit) -> list[str]:
    """Say which rows' prompts are not read to their end.

    Args:
        rows: prompt rows.
        prefix: text that stands before every prompt.
        tokens: the tokenizer.

    Returns:
        One line for each such row, with its id, its class and its number of tokens.
    """
    counted = ((row, tokens.count(prefix + row.prompt)) for row in rows)
    return [
        f"row {row.id} ({row.class_}): {count} tokens with the prefix, of which {tokens.limit} are read"
        for row, count in counted
        if count > tokens.limit
    ]
