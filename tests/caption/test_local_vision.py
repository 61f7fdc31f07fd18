"""A tiny Qwen2.5-VL of the real architecture, through AutoProcessor and generate; its weights are random."""

import json

import numpy as np
import pytest
from PIL import Image

from fastgen.caption.command import caption
from fastgen.caption.local_vision import MOST_TOKENS, LocalVision
from fastgen.caption.vision import ImageRequest, Pictures, open_vision
from fastgen.errors import BankError, ModelError
from tests.tiny_vision import make_tiny_vision

QUESTION = "describe the background of the pet"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_vision(tmp_path_factory.mktemp("vision") / "tiny-qwen")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two pictures, called a and b in place of their hashes."""
    path = tmp_path_factory.mktemp("pictures")
    for seed, name in enumerate("ab"):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path / f"{name}.png")
    return Pictures({name: path / f"{name}.png" for name in "ab"})


def request(chat, image="a", *, temperature=0.0, call=0, text=QUESTION):
    return ImageRequest(
        model=chat.identity, messages=[{"role": "user", "content": text}], temperature=temperature, call=call,
        attempt=0, sentences=1, image_sha256=image, side=56,
    )  # fmt: skip


def test_the_answer_depends_on_picture_and_question_and_is_always_the_same(folder, pictures):
    chat = open_vision(str(folder), pictures, base_url=None, key_env="OPENAI_API_KEY")
    assert isinstance(chat, LocalVision) and chat._loaded is None
    first = chat.ask(request(chat))
    assert first == LocalVision(folder, pictures).ask(request(chat))
    assert 0 < first.completion_tokens <= MOST_TOKENS
    assert first.text != chat.ask(request(chat, "b")).text, "it looks at the picture"
    assert first.text != chat.ask(request(chat, text="and the pose?")).text
    sampled = chat.ask(request(chat, temperature=1.0))
    assert sampled == chat.ask(request(chat, temperature=1.0))
    assert sampled.text != chat.ask(request(chat, temperature=1.0, call=1)).text


def test_greedy_answers_are_those_of_transformers_own_generate(folder, pictures):
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    chat = LocalVision(folder, pictures)
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    prompt = (
        f"<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    )
    picture = pictures.load(request(chat))
    inputs = processor(images=[picture], text=[prompt], return_tensors="pt")
    with torch.inference_mode():
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=MOST_TOKENS)[0, inputs.input_ids.shape[1] :]
    answer = chat.ask(request(chat))
    assert answer.text == processor.decode(ids, skip_special_tokens=True)
    assert answer.prompt_tokens == inputs.input_ids.shape[1]


def test_a_processor_without_chat_template_or_weights_that_do_not_fit_are_one_error(folder, pictures, tmp_path):
    chat = LocalVision(folder, pictures)
    chat._load()[0].chat_template = None
    with pytest.raises(ModelError, match="has no chat template"):
        chat.ask(request(chat))
    with pytest.raises(ModelError, match="holds no config.json"):
        open_vision(str(tmp_path), pictures, base_url=None, key_env="OPENAI_API_KEY")
    (tmp_path / "config.json").write_text('{"model_type": "no-such-thing"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    chat = LocalVision(tmp_path, pictures)
    with pytest.raises(ModelError, match="transformers cannot load it"):
        chat.ask(request(chat))


def test_a_folder_is_captioned_by_it(folder, tmp_path):
    """Noise has words or has none: the command ends well with --skip, or with a list."""
    for name in ("pug", "beagle"):
        (tmp_path / "real" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), (len(name) * 20, 9, 9)).save(tmp_path / "real" / name / "0.png")
    options = {"model": str(folder), "descriptor": "pet", "attributes": ["background"], "side": 56}
    try:
        out = caption(tmp_path / "real", **options, say=lambda line: None)
    except BankError as error:
        assert "have no usable caption" in str(error)
    else:
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert [line["file_name"] for line in lines] == ["beagle/0.png", "pug/0.png"]
        assert all(0 < len(line["background"].split()) <= 20 for line in lines)
        assert json.loads((tmp_path / "real.captions.jsonl.about.json").read_text())["model"] == "tiny-qwen"
    assert list((tmp_path / "real.captions.jsonl.cache").iterdir())
