"""Learns CLIP's byte-pair vocabulary (2 048 tokens) from PetWorld captions and common prompt words."""

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

from fastgen.petworld.captions import vocabulary_corpus

VOCABULARY = 2048
START, END = "<|startoftext|>", "<|endoftext|>"
# CLIP's own pre-tokenisation: contractions, words, single digits, runs of punctuation.
WORDS = Regex(r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""")


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """Loads the tokenizer of a folder, learning it first if the folder has none."""
    if not (folder / "vocab.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _learn(folder)
    return CLIPTokenizer.from_pretrained(folder)


def _learn(folder: Path) -> None:
    tokenizer = Tokenizer(BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(WORDS, "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = BpeTrainer(
        vocab_size=VOCABULARY - 258, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(vocabulary_corpus(0, 40_000), trainer)
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    # Every byte exists with and without the end-of-word mark, so that no text is ever unknown.
    tokens = alphabet + [letter + "</w>" for letter in alphabet]
    tokens += ["".join(pair) for pair in merges]
    tokens = list(dict.fromkeys(tokens))[: VOCABULARY - 2] + [START, END]
    known = set(tokens)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False))
    lines = [f"{a} {b}" for a, b in merges if a in known and b in known and a + b in known]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n")
    tokenizer = CLIPTokenizer(folder / "vocab.json", folder / "merges.txt", model_max_length=77)
    tokenizer.save_pretrained(folder)
