"""A learnt word lowers the loss, leaves every other vector alone, and means the same in diffusers and our engine."""

import json

import pytest
import torch
from safetensors.torch import load_file

from fastgen.engine.embeddings import add_embeddings, parse_embeddings
from fastgen.errors import FastgenError, OutputError
from fastgen.finetune.examples import read_examples
from fastgen.finetune.objective import mean_loss
from fastgen.finetune.optimize import Optimizer
from fastgen.finetune.parts import load_trainable
from fastgen.finetune.textual_inversion import Inversion, textual_inversion
from tests.finetune.pets import make_pets
from tests.tiny_model import TEXT_WIDTH

STEPS = 12


@pytest.fixture(scope="module")
def learnt(pets, tiny_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("words") / "pets"
    return textual_inversion(
        pets, out=out, model=str(tiny_model), shots=2, steps=STEPS, batch=4, lr=0.3, say=lambda line: None
    )


def test_a_file_per_class_in_diffusers_format(learnt):
    names = sorted(p.name for p in learnt.iterdir())
    assert names == ["big_cat.safetensors", "loss.png", "red_dog.safetensors", "runs", "samples.png"]
    assert {k: v.shape for k, v in load_file(learnt / "big_cat.safetensors").items()} == {"<big_cat>": (1, TEXT_WIDTH)}
    about = json.loads((learnt / "runs" / "big_cat" / "finetune.json").read_text())
    assert about["settings"]["pictures"] == 2 and about["finished"]["steps"] == STEPS
    assert not (learnt / "runs" / "big_cat" / "checkpoint.pt").exists()


def test_diffusers_and_our_engine_read_it_alike(learnt, tiny_model):
    from diffusers import StableDiffusionPipeline

    prompts = ["a photo of a <big_cat>", "the <red_dog> and the <big_cat>", "a cat"]
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None, image_encoder=None)
    for name in ("big_cat", "red_dog"):
        pipeline.load_textual_inversion(learnt, weight_name=f"{name}.safetensors")
    with torch.no_grad():
        theirs, _ = pipeline.encode_prompt(prompts, "cpu", 1, False)
        parts = load_trainable(tiny_model)
        options = {"tokenizer": parts.tokenizer, "text_encoder": parts.text_encoder}
        start = parts.text_encoder.get_input_embeddings().weight.clone()
        files = [f"<{name}>={learnt / name}.safetensors" for name in ("big_cat", "red_dog")]
        add_embeddings(parse_embeddings(files), **options)
        ours = parts.text_encoder(parts.token_ids(prompts), return_dict=False)[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert torch.equal(pipeline.text_encoder.get_input_embeddings().weight[: len(start)], start)


def test_it_lowers_the_loss_on_fixed_noise(tmp_path):
    """The embedded model, which listens to its text, and a breed that it has never seen; other noise than trained."""
    from fastgen.petworld.dataset import export

    options = {"classes": ["Cobaltine"], "split": "few-shot", "shots": 2, "test_per_class": 1, "say": lambda line: None}
    world = export(tmp_path / "world", **options)
    textual_inversion(world, out=tmp_path / "x", steps=10, lr=0.05, samples=False, say=lambda line: None)
    inversion = Inversion(load_trainable("mini"), Optimizer(steps=1, lr=1.0), tmp_path, batch=4, seed=9)
    objective, embedding = inversion.objective(read_examples(world).rows, "<cobaltine>", device=torch.device("cpu"))
    before = mean_loss(objective, range(4))
    with torch.no_grad():
        embedding.vectors.copy_(load_file(tmp_path / "x" / "cobaltine.safetensors")["<cobaltine>"])
    after = mean_loss(objective, range(4))
    assert after < 0.98 * before, (before, after)


def test_only_the_new_row_is_trained(pets, tiny_model):
    parts = load_trainable(tiny_model)
    base = parts.text_encoder.get_input_embeddings().weight
    inversion = Inversion(parts, Optimizer(steps=1, lr=1.0), pets, batch=4, seed=0)
    objective, embedding = inversion.objective(read_examples(pets).rows, "<x>", device=torch.device("cpu"))
    the = parts.tokenizer.encode("the", add_special_tokens=False)
    assert torch.equal(embedding.vectors.detach(), base[the])
    objective.loss(0, slice(None)).backward()
    assert embedding.vectors.grad.abs().max() > 0 and base.grad is None
    modules = parts.unet, parts.text_encoder, parts.vae
    trained = [name for part in modules for name, p in part.named_parameters() if p.requires_grad]
    assert trained == ["text_model.embeddings.token_embedding.vectors"]
    ids = parts.token_ids(["a photo of a cat"])
    assert torch.equal(embedding(ids), torch.nn.functional.embedding(ids, base))


def test_finished_words_are_kept_and_a_lost_one_is_learnt_again(learnt, pets, tiny_model):
    options = {"out": learnt, "model": str(tiny_model), "shots": 2, "steps": STEPS, "batch": 4, "lr": 0.3}
    bits = (learnt / "red_dog.safetensors").read_bytes()
    (learnt / "red_dog.safetensors").unlink()
    lines = []
    textual_inversion(pets, **options, say=lines.append)
    assert lines[0] == f"{learnt / 'big_cat.safetensors'} is up to date"
    assert (learnt / "red_dog.safetensors").read_bytes() == bits
    with pytest.raises(OutputError, match="holds a fine-tuning with lr 0.3 instead of 0.2"):
        textual_inversion(pets, **{**options, "lr": 0.2})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "got 0 steps"),
        ({"batch": 0}, "batch is 0"),
        ({"fit": "stretch"}, "fit is 'stretch'; it must be one of crop, squash"),
        ({"init_word": "no-word"}, "tokens for this tokenizer"),
        ({"shots": 0}, "shots is 0"),
    ],
)
def test_wrong_arguments(pets, tiny_model, tmp_path, options, message):
    with pytest.raises(FastgenError, match=message):
        textual_inversion(pets, out=tmp_path / "x", model=str(tiny_model), **options)


def test_classes_that_would_share_a_word(tiny_model, tmp_path):
    real = make_pets(tmp_path / "real", classes=("Big_Cat", "big-cat"), captions=False)
    with pytest.raises(FastgenError, match="would be <big_cat>"):
        textual_inversion(real, out=tmp_path / "x", model=str(tiny_model))
