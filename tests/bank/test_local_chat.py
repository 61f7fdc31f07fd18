"""A local language model through the same door as an endpoint; here one with random weights, so it talks nonsense."""

import json

import pytest

from fastgen.bank.chat import Request
from fastgen.bank.llm import open_chat, write_llm_bank
from fastgen.bank.local_chat import LocalChat
from fastgen.errors import BankError, ModelError

TEMPLATE = "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}<assistant>"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE
WORDS = '{ } " : , . a pug photo of on grass beagle'.split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Llama of two tiny layers with a vocabulary of words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("local") / "tiny-chat"
    words = ["<unk>", "<end>", *WORDS]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<end>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(words), max_position_embeddings=900, eos_token_id=1, bos_token_id=None, **size)
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def request(chat, *, call=0, temperature=1.0, text="a photo of a pug"):
    messages = [{"role": "system", "content": "a grass"}, {"role": "user", "content": text}]
    return Request(model=chat.identity, messages=messages, temperature=temperature, call=call, attempt=0, sentences=1)


def test_the_same_request_gets_the_same_answer_and_another_call_another(folder):
    chat = open_chat(str(folder))
    assert isinstance(chat, LocalChat)
    first = chat.ask(request(chat))
    assert first == LocalChat(folder).ask(request(chat))
    assert first.text != chat.ask(request(chat, call=1)).text
    assert chat.ask(request(chat, temperature=0)).text == chat.ask(request(chat, temperature=0, call=1)).text
    assert first.prompt_tokens == len("< system > a grass < user > a photo of a pug < assistant >".split())
    assert 0 < first.completion_tokens <= 256 + 96
    assert first.finish in ("stop", "length")


def test_the_identity_names_the_weights_and_no_path(folder):
    chat = LocalChat(folder)
    identity = chat.identity
    assert chat._loaded is None, "what is in the cache must not load a model"
    assert (identity["model"], identity["endpoint"]) == ("tiny-chat", "local")
    assert len(identity["sha256"]) == 64
    assert str(folder.parent) not in json.dumps(identity)


def test_a_model_without_system_role_gets_one_message(folder):
    chat = LocalChat(folder)
    whole = chat.ask(request(chat)).prompt_tokens
    chat._load()[0].chat_template = NO_SYSTEM
    assert chat.ask(request(chat)).prompt_tokens == whole - len("< user >".split())


def test_a_request_that_is_too_long_is_one_error(folder):
    chat = LocalChat(folder)
    with pytest.raises(ModelError, match="tokens and the model reads 900; lower --batch-classes"):
        chat.ask(request(chat, text="pug " * 900))


def test_a_model_without_chat_template_is_one_error(folder):
    chat = LocalChat(folder)
    chat._load()[0].chat_template = None
    with pytest.raises(ModelError, match="has no chat template"):
        chat.ask(request(chat))


def test_folders_that_are_no_model(folder, tmp_path):
    with pytest.raises(ModelError, match="holds no config.json"):
        open_chat(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "no-such-thing"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(ModelError, match=r"with weights in \*.safetensors"):
        open_chat(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    chat = open_chat(str(tmp_path))
    with pytest.raises(ModelError, match="transformers cannot load it"):
        chat.ask(request(chat))


def test_nonsense_never_becomes_a_bank(folder, tmp_path):
    options = {"description": "Photos.", "model": str(folder), "per_class": 1, "say": lambda line: None}
    with pytest.raises(BankError, match="after 5 rounds without a new sentence, 2 classes are not complete"):
        write_llm_bank(["zebra", "yak"], tmp_path / "bank.jsonl", **options)
    assert len(list((tmp_path / "bank.jsonl.cache").iterdir())) == 5
    assert not (tmp_path / "bank.jsonl").exists()
