"""Textual inversion gives the text embeddings that diffusers' own loader gives."""

import copy
import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from fastgen.engine.embeddings import Embedding, add_embeddings, expand_prompts, parse_embeddings
from fastgen.errors import EngineError, ModelError
from fastgen.generate.batch import complete_row
from fastgen.records import Row
from tests.fake_engine import FakeEngine
from tests.tiny_model import TEXT_WIDTH, _tokenizer, make_text_encoder

PROMPTS = ["a photo of <cat-toy> on grass", "<style>, a dog", "the <cat-toy> and the <cat-toy> in snow", "a cat"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return _tokenizer(tmp_path_factory.mktemp("tokenizer") / "words")


@pytest.fixture(scope="module")
def text_encoder():
    torch.manual_seed(3)
    return make_text_encoder().eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One word of three vectors in diffusers' format, one of one vector in A1111's."""
    folder = tmp_path_factory.mktemp("embeddings")
    generator = torch.Generator().manual_seed(4)
    save_file({"<other-name>": torch.randn(3, TEXT_WIDTH, generator=generator)}, folder / "learned_embeds.safetensors")
    save_file({"emb_params": torch.randn(1, TEXT_WIDTH, generator=generator)}, folder / "style.safetensors")
    return [f"<cat-toy>={folder / 'learned_embeds.safetensors'}", f"<style>={folder / 'style.safetensors'}"]


def encode(prompts, tokenizer, text_encoder):
    ids = tokenizer(prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        return text_encoder(ids, return_dict=False)[0]


def test_equals_diffusers(tokenizer, text_encoder, files, tmp_path):
    from diffusers import StableDiffusionPipeline

    theirs = copy.deepcopy(tokenizer), copy.deepcopy(text_encoder)
    pipeline = StableDiffusionPipeline(
        vae=None,
        text_encoder=theirs[1],
        tokenizer=theirs[0],
        unet=None,
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for text in files:
        name, _, path = text.partition("=")
        pipeline.load_textual_inversion(path, token=name)
    expected = encode(pipeline.maybe_convert_prompt(PROMPTS, theirs[0]), *theirs)

    ours = copy.deepcopy(tokenizer), copy.deepcopy(text_encoder)
    add_embeddings(parse_embeddings(files), tokenizer=ours[0], text_encoder=ours[1])
    assert expand_prompts(PROMPTS, ours[0])[0] == "a photo of <cat-toy> <cat-toy>_1 <cat-toy>_2 on grass"
    got = encode(expand_prompts(PROMPTS, ours[0]), *ours)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    before = encode(PROMPTS, tokenizer, text_encoder)
    torch.testing.assert_close(got[3], before[3], rtol=0, atol=1e-6)
    assert (got[:3] - before[:3]).abs().flatten(1).amax(1).min() > 1e-2

    ours[0].save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    ids = [t(expand_prompts(PROMPTS, t)).input_ids for t in (again, ours[0])]
    assert ids[0] == ids[1]


def test_old_files_of_a1111_are_read_without_their_code(tmp_path):
    vectors = torch.randn(2, TEXT_WIDTH)
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "x"}, tmp_path / "x.pt")
    assert torch.equal(Embedding(name="<x>", path=tmp_path / "x.pt").read(), vectors)


@pytest.mark.parametrize(
    ("name", "state", "message"),
    [
        ("<x>", {"a": (1, 768)}, "vectors of width 768, this text encoder takes 32"),
        ("<x>", {"clip_g": (1, 1280), "clip_l": (1, 768)}, "holds clip_g, clip_l; .* Stable Diffusion XL"),
        ("cat", {"a": (1, TEXT_WIDTH)}, "knows .* already; choose another name, for example '<cat>'"),
    ],
)
def test_what_does_not_fit_is_refused(tokenizer, text_encoder, tmp_path, name, state, message):
    path = tmp_path / "x.safetensors"
    save_file({key: torch.zeros(shape) for key, shape in state.items()}, path)
    vocabulary = copy.deepcopy(tokenizer)
    vocabulary.add_tokens(["cat"])
    with pytest.raises(ModelError, match=message):
        embeddings = [Embedding(name=name, path=path)]
        add_embeddings(embeddings, tokenizer=vocabulary, text_encoder=copy.deepcopy(text_encoder))


def test_arguments(tmp_path):
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"weights")
    assert parse_embeddings([f"<x>={file}"]) == (Embedding(name="<x>", path=file),)
    for texts, message in [
        (["x"], "write NAME=PATH"),
        ([f"a cat={file}"], "write NAME=PATH"),
        ([f"x={tmp_path / 'none'}"], "does not exist"),
        ([f"pet={file}", f"pets={file}"], "'pet' is a part of 'pets'"),
        ([f"x={file}", f"x={file}"], "rename one"),
    ]:
        with pytest.raises(ModelError, match=message):
            parse_embeddings(texts)


def test_a_folder_holds_a_word_in_each_file(tmp_path):
    folder = tmp_path / "words"
    folder.mkdir()
    with pytest.raises(ModelError, match="words: this folder has no .safetensors file; one for each word"):
        parse_embeddings([str(folder)])
    for name in ("maine_coon", "abyssinian"):
        (folder / f"{name}.safetensors").write_bytes(b"weights")
    (folder / "loss.json").write_text("{}")
    found = parse_embeddings([str(folder), f"<x>={folder / 'abyssinian.safetensors'}"])
    assert [(e.name, e.path.name) for e in found] == [
        ("<abyssinian>", "abyssinian.safetensors"),
        ("<maine_coon>", "maine_coon.safetensors"),
        ("<x>", "abyssinian.safetensors"),
    ]
    with pytest.raises(ModelError, match="rename one"):
        parse_embeddings([str(folder), f"<abyssinian>={folder / 'maine_coon.safetensors'}"])
    (folder / "a b.safetensors").write_bytes(b"weights")
    with pytest.raises(ModelError, match="a word has no blanks"):
        parse_embeddings([str(folder)])


def test_many_words_are_added_as_diffusers_adds_each(tokenizer, text_encoder, tmp_path):
    vectors = {f"<word_{i}>": torch.randn(1 + i % 2, TEXT_WIDTH) for i in range(20)}
    for name, value in vectors.items():
        save_file({name: value}, tmp_path / f"{name[1:-1]}.safetensors")
    words, encoder = copy.deepcopy(tokenizer), copy.deepcopy(text_encoder)
    add_embeddings(parse_embeddings([str(tmp_path)]), tokenizer=words, text_encoder=encoder)
    table = encoder.get_input_embeddings().weight
    assert len(table) == len(words) == len(tokenizer) + 30
    for name, value in vectors.items():
        ids = words(expand_prompts([name], words)[0], add_special_tokens=False).input_ids
        assert torch.equal(table[ids], value), name
    assert torch.equal(table[: len(tokenizer)], text_encoder.get_input_embeddings().weight)


def test_an_engine_of_many_words_has_a_name_that_a_file_system_takes(tiny_model, tmp_path):
    from fastgen.engine.build import engine_name
    from fastgen.engine.model_files import find_sources

    options = {"backend": "torch", "precision": "fp32", "compile": False, "batch": 8, "size": 64}
    names = []
    for value in (0.0, 1.0):
        for i in range(102):
            save_file({"x": torch.full((1, TEXT_WIDTH), value)}, tmp_path / f"class_{i:03d}.safetensors")
        sources = find_sources(tiny_model, embeddings=parse_embeddings([str(tmp_path)]))
        names.append(engine_name(sources, **options))
    assert "-102-words-" in names[0] and len(names[0]) < 100 and names[0] != names[1]


def test_rows_may_only_want_words_that_the_engine_has():
    engine = FakeEngine()
    engine.spec.words = ("<cat-toy>",)
    obj = {"id": "r", "class": "cat", "prompt": "a <cat-toy>", "seed": 1, "lambda": None}

    def complete(**adapter):
        return complete_row(Row.from_json({**obj, "adapters": [adapter]}, None), engine.spec, engine.scheduler_config)

    assert complete(name="<cat-toy>", target="ti").adapters[0].name == "<cat-toy>"
    for adapter, message in [
        ({"name": "<dog>", "target": "ti"}, r"has \(<cat-toy> at 1\); or fastgen build --embedding '<dog>=PATH'"),
        ({"name": "<cat-toy>", "target": "ti", "scale": 0.5}, "and scale 1"),
        ({"name": "<cat-toy>", "target": "unet"}, r"has \(none\); or fastgen build --lora"),
    ]:
        with pytest.raises(EngineError, match=message):
            complete(**adapter)


def test_an_engine_knows_its_words(tiny_model, files, tmp_path):
    from fastgen.engine.build import build
    from fastgen.engine.load import load_engine

    lines = []
    options = {"batch": 2, "backend": "torch", "embedding": files, "out": tmp_path / "engine", "say": lines.append}
    path = build(tiny_model, **options)
    engine = load_engine(path)
    assert engine.spec.words == ("<cat-toy>", "<style>")
    assert engine.expand(["a <cat-toy>"]) == ["a <cat-toy> <cat-toy>_1 <cat-toy>_2"]
    command = json.loads((path / "engine.json").read_text())["build_command"]
    assert f"--embedding '{files[0]}'" in command
    texts = b"".join(p.read_bytes() for p in (path / "tokenizer").iterdir())
    assert str(tiny_model).encode() not in texts and str(tmp_path).encode() not in texts
    ids = engine.tokenizer(engine.expand(PROMPTS), padding="max_length", max_length=77, return_tensors="pt").input_ids
    assert engine.encode_text(ids).isfinite().all()
    build(tiny_model, **options)
    assert "up to date" in lines[-1]
