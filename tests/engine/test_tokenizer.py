"""Tokenizers in the layouts of transformers 4 and 5: the same ids, in an engine too."""

import json
import shutil

import pytest
from transformers import CLIPTokenizer, CLIPTokenizerFast

from fastgen.engine.build import build
from fastgen.engine.load import load_engine
from fastgen.engine.model_files import find_sources
from fastgen.engine.tokenizer import load_tokenizer
from fastgen.errors import ModelError

PROMPTS = ["a photo of a Maine Coon, number 3", "héllo wörld!! 12345 <cat> A  b", "it's “quoted” — 日本", ""]
MINI = find_sources("mini").folder / "tokenizer"


def write_as_transformers_5(source, target, *, words=()):
    """One tokenizer.json beside the config, merges as pairs, no vocab.json."""
    target.mkdir(parents=True)
    fast = CLIPTokenizerFast.from_pretrained(source)
    fast.add_tokens(list(words))
    fast.backend_tokenizer.save(str(target / "tokenizer.json"))
    content = json.loads((target / "tokenizer.json").read_text())
    assert content["model"]["merges"][0] == ["i", "n"] and "vocab" in content["model"]
    config = json.loads((source / "tokenizer_config.json").read_text())
    config.pop("added_tokens_decoder", None)
    (target / "tokenizer_config.json").write_text(json.dumps(config))
    return target


def test_both_layouts_have_the_same_ids(tmp_path):
    folder = write_as_transformers_5(MINI, tmp_path / "t", words=["<my-cat>"])
    found, expected = load_tokenizer(folder), CLIPTokenizer.from_pretrained(MINI)
    assert found(PROMPTS).input_ids == expected(PROMPTS).input_ids
    padded = {"padding": "max_length", "truncation": True}
    assert found(["cat " * 90], **padded).input_ids == expected(["cat " * 90], **padded).input_ids
    assert len(found) == len(expected) + 1 and found.convert_tokens_to_ids("<my-cat>") == len(expected)
    assert sorted(path.name for path in folder.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]


def test_merges_may_be_strings(tmp_path):
    folder = write_as_transformers_5(MINI, tmp_path / "t")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert load_tokenizer(folder)(PROMPTS).input_ids == CLIPTokenizer.from_pretrained(MINI)(PROMPTS).input_ids


def test_an_engine_of_such_a_model_reads_prompts_as_the_model_does(tiny_model, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    shutil.rmtree(model / "tokenizer")
    source = tiny_model / "tokenizer"
    CLIPTokenizerFast.from_pretrained(source).save_pretrained(model / "tokenizer")
    for name in ("vocab.json", "merges.txt"):
        (model / "tokenizer" / name).unlink()
    path = build(model, backend="torch", batch=2, out=tmp_path / "engine", say=lambda _: None)
    assert load_engine(path).tokenizer(PROMPTS).input_ids == CLIPTokenizer.from_pretrained(source)(PROMPTS).input_ids
    assert str(tmp_path) not in "".join(file.read_text() for file in (path / "tokenizer").iterdir())


DAMAGED = (
    "",
    "{}",
    "[1]",
    '{"model": {"type": "WordPiece", "vocab": {}}}',
    '{"model": {"vocab": [["a", 0]], "merges": []}, "added_tokens": []}',
    '{"model": {"vocab": {"a": 0}, "merges": [1]}, "added_tokens": []}',
    '{"model": {"vocab": {"a": 0}, "merges": []}, "added_tokens": [{"id": 0, "content": 3}]}',
)


@pytest.mark.parametrize("content", DAMAGED)
def test_another_kind_of_tokenizer_is_named(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json is not the vocabulary of a CLIP tokenizer"):
        load_tokenizer(tmp_path)
