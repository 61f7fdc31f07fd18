"""Counting tokens as the text encoder does: with both end marks, the prefix, and the tokenizer that is asked for."""

import pytest

from fastgen.bank.tokens import token_limit, too_long
from fastgen.errors import ModelError
from fastgen.records import Row


def test_clips_own_vocabulary():
    tokens = token_limit()
    assert tokens.limit == 77
    assert tokens.count("") == 2
    assert tokens.count("a photo of a cat") == 7
    assert tokens.count("best quality, high quality, ") == 2 + 6, "the prefix costs six tokens"
    assert tokens.count("a {class} sign, 100%") == 2 + 10


TEXTS = [
    "A photo of a Staffordshire Bull Terrier, seen from a low angle; it's running past 1024 houses!",
    "{class} {0}% #tag @home ... --- ((x)) we're they'll don't I'd",
    "Un café crème à Paris, 東京の犬, собака, \N{DOG FACE}\N{DOG FACE} naïve",
    "supercalifragilisticexpialidocious antidisestablishmentarianism qzxv",
    "  blanks\tand\nbreaks  ",
    "",
]


def test_counts_are_those_of_open_clip_itself():
    from open_clip.tokenizer import SimpleTokenizer

    theirs = SimpleTokenizer()
    assert [token_limit().count(text) for text in TEXTS] == [len(theirs.encode(text)) + 2 for text in TEXTS]


def test_rows_that_are_not_read_to_their_end():
    rows = [Row(id=f"r{n}", class_="cat", prompt=" ".join(["cat"] * n)) for n in (69, 70, 75, 76)]
    assert too_long(rows, "", token_limit()) == ["row r76 (cat): 78 tokens with the prefix, of which 77 are read"]
    assert [line.split()[1] for line in too_long(rows, "best quality, high quality, ", token_limit())] == [
        "r70",
        "r75",
        "r76",
    ]


def test_the_tokenizer_of_a_model(tiny_model):
    from transformers import CLIPTokenizer

    own = CLIPTokenizer.from_pretrained(tiny_model / "tokenizer")
    for folder in (tiny_model, tiny_model / "tokenizer"):
        tokens = token_limit(folder)
        assert tokens.count("a red cat in snow") == len(own("a red cat in snow").input_ids)
        assert tokens.limit == own.model_max_length


def test_folders_without_a_tokenizer(tmp_path):
    with pytest.raises(ModelError, match="holds no tokenizer_config.json, nor does its folder tokenizer"):
        token_limit(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ModelError, match="is no tokenizer that can be loaded"):
        token_limit(tmp_path)
