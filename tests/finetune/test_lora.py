"""A LoRA trained here is the same in peft, diffusers and our engine, and a killed run ends with the same bits."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastgen.engine.lora import Lora, fuse_loras
from fastgen.errors import FastgenError, Interrupted, OutputError
from fastgen.finetune import optimize as loop
from fastgen.finetune.examples import read_examples
from fastgen.finetune.lora import LoraRun, lora
from fastgen.finetune.objective import mean_loss
from fastgen.finetune.optimize import new_accelerator
from fastgen.finetune.parts import load_trainable
from fastgen.finetune.recipes import recipe_of
from tests.finetune.conftest import SETTINGS
from tests.finetune.pets import make_pets
from tests.tiny_model import TEXT_WIDTH

FILE = "pytorch_lora_weights.safetensors"
PROMPTS = ["a pet photo of a Red Dog in the snow background with the running pose.", "a photo of a cat"]


def run(pets, model, out, **options):
    return lora(pets, out=out, model=str(model), **{"sample_every": 0, "say": lambda line: None, **SETTINGS, **options})


def weights(out):
    return load_file(out / FILE)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def call(unet, text_encoder, parts):
    with torch.no_grad():
        text = text_encoder(parts.token_ids(PROMPTS), return_dict=False)[0]
        sample = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(5))
        return text, unet(sample, torch.tensor([900, 30]), text, return_dict=False)[0]


def test_every_attention_projection_of_both_parts_is_trained(trained, tiny_model):
    parts = load_trainable(tiny_model)
    expected = set()
    text = "q_proj", "k_proj", "v_proj", "out_proj"
    for part, ends in (("unet", ("to_q", "to_k", "to_v", "to_out.0")), ("text_encoder", text)):
        for name, _ in getattr(parts, part).named_modules():
            if name.endswith(ends):
                expected |= {f"{part}.{name}.lora_{side}.weight" for side in "AB"}
    state = weights(trained)
    assert state.keys() == expected
    assert any(".attn1." in name for name in state) and any(".attn2." in name for name in state)
    assert all(value.abs().max() > 0 for value in state.values())  # also the side that starts from zero
    assert {tuple(v.shape)[0] for name, v in state.items() if "lora_A" in name} == {4}


def test_diffusers_and_our_engine_compute_the_same(trained, tiny_model):
    """The pipeline that loads the file, peft's forward, and the fused weights agree; alpha / rank is 1.5 here."""
    from diffusers import StableDiffusionPipeline

    parts = load_trainable(tiny_model)
    plain = call(parts.unet, parts.text_encoder, parts)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None, image_encoder=None)
    pipeline.load_lora_weights(trained, weight_name=FILE)  # the name is only needed offline
    theirs = call(pipeline.unet, pipeline.text_encoder, parts)
    fused = copy.deepcopy(parts.unet), copy.deepcopy(parts.text_encoder)
    fuse_loras([Lora(name="pets", path=trained)], unet=fused[0], text_encoder=fused[1])
    ours = call(*fused, parts)
    for got, expected, before in zip(ours, theirs, plain, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=3e-5)
        assert (expected - before).abs().max() > 1e-2  # the text embeddings change too: half of the adaptation


def test_what_is_left_on_disk(trained):
    about = json.loads((trained / "finetune.json").read_text())
    assert about["settings"]["recipe"]["template"].startswith("a {descriptor} photo of a {class} in the {background}")
    assert about["settings"]["recipe"]["steps"] == about["finished"]["steps"] == 8
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == list(range(1, 9))
    assert [line["lr"] for line in log][:3] == [0.0, 0.025, 0.05]
    assert not (trained / "checkpoint.pt").exists()
    for name in ("loss.png", "samples/000008.png"):
        assert (trained / name).read_bytes().startswith(b"\x89PNG")
    assert not list(trained.glob(".*"))


def test_a_second_run_does_nothing_and_another_is_refused(trained, pets, tiny_model):
    before = (trained / FILE).stat().st_mtime_ns
    lines = []
    run(pets, tiny_model, trained, say=lines.append)
    assert "nothing to do" in lines[-1] and (trained / FILE).stat().st_mtime_ns == before
    with pytest.raises(OutputError, match='recipe .*"rank": 4.* instead of'):
        run(pets, tiny_model, trained, rank=2)


class Killed(Exception):
    pass


def test_a_broken_run_ends_with_the_same_bits(trained, pets, tiny_model, tmp_path, monkeypatch):
    """Ends abruptly after step 5, with a checkpoint of step 4 and a log that is ahead of it."""
    save = loop._gradients

    def die(objective, values, step, **options):
        if step == 5:
            raise Killed
        return save(objective, values, step, **options)

    monkeypatch.setattr(loop, "_gradients", die)
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    with pytest.raises(Killed):
        run(pets, tiny_model, tmp_path / "x", save_every=4)
    monkeypatch.setattr(loop, "_gradients", save)
    assert len((tmp_path / "x" / "log.jsonl").read_text().splitlines()) == 5
    with (tmp_path / "x" / "log.jsonl").open("a") as log:
        log.write('{"step": 6, "ep')  # the line that was being written
    lines = []
    run(pets, tiny_model, tmp_path / "x", say=lines.append)
    assert any("4 of 8 steps are done already" in line for line in lines)
    assert same(weights(tmp_path / "x"), weights(trained))
    assert (tmp_path / "x" / "log.jsonl").read_text() == (trained / "log.jsonl").read_text()


def test_a_signal_saves_and_the_same_command_goes_on(trained, pets, tiny_model, tmp_path, monkeypatch):
    gradients = loop._gradients

    def signalled(objective, values, step, **options):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return gradients(objective, values, step, **options)

    monkeypatch.setattr(loop, "_gradients", signalled)
    with pytest.raises(Interrupted, match="SIGTERM: 3 of 8 steps are saved"):
        run(pets, tiny_model, tmp_path / "x")
    monkeypatch.setattr(loop, "_gradients", gradients)
    assert same(weights(run(pets, tiny_model, tmp_path / "x")), weights(trained))


def test_accumulation_changes_nothing_but_rounding(trained, pets, tiny_model, tmp_path):
    out = run(pets, tiny_model, tmp_path / "x", accumulate=3)
    one, other = weights(trained), weights(out)
    start = {name: value for name, value in one.items()}
    for name, value in start.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=2e-3)


def test_captions_whose_end_is_not_read_are_found(tiny_model):
    """Mistake 10: of a long answer about the background, the pose is lost."""
    parts = load_trainable(tiny_model)
    long = "a pet photo of a cat in the " + "snow " * 70 + "background with the sitting pose."
    assert parts.too_long([PROMPTS[1], long]) == [long]


def test_seed_decides(trained, pets, tiny_model, tmp_path):
    assert not same(weights(run(pets, tiny_model, tmp_path / "x", seed=1, steps=3)), weights(trained))


def test_bfloat16_trains_float32_weights(pets, tiny_model, tmp_path):
    state = weights(run(pets, tiny_model, tmp_path / "x", precision="bf16", steps=3))
    assert {value.dtype for value in state.values()} == {torch.float32}


def test_one_lora_per_class(pets, tiny_model, tmp_path):
    lines = []
    run(pets, tiny_model, tmp_path / "x", scope="class", steps=3, say=lines.append)
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == ["big_cat", "red_dog"]
    assert not same(weights(tmp_path / "x" / "big_cat"), weights(tmp_path / "x" / "red_dog"))
    about = json.loads((tmp_path / "x" / "red_dog" / "finetune.json").read_text())
    assert about["settings"]["classes"] == ["Red Dog"] and about["settings"]["pictures"] == 3
    assert any("BOB trains one for the data set" in line for line in lines)


def test_words_with_the_lora(pets, tiny_model, tmp_path):
    """Diff-Mix: a word per class and a LoRA of the UNet alone."""
    changes = {"rank": None, "alpha": None, "steps": 4, "warmup": None, "profile": "diff-mix"}
    out = run(pets, tiny_model, tmp_path / "x", **changes)
    state = weights(out)
    assert all(name.startswith("unet.") for name in state)
    assert {v.shape[0] for name, v in state.items() if "lora_A" in name} == {10}
    parts = load_trainable(tiny_model)
    start = parts.text_encoder.get_input_embeddings().weight[parts.tokenizer.encode("the", add_special_tokens=False)]
    vectors = [load_file(out / "words" / f"{name}.safetensors") for name in ("big_cat", "red_dog")]
    assert [list(v) for v in vectors] == [["<big_cat>"], ["<red_dog>"]]
    for vector in vectors:
        (value,) = vector.values()
        assert value.shape == (1, TEXT_WIDTH) and not torch.allclose(value, start, atol=1e-3)


def test_the_loss_goes_down(pets, tiny_model, tmp_path):
    """On the same batches, noise and timesteps, without the LoRA and with it."""
    out = run(pets, tiny_model, tmp_path / "x", steps=24, lr=2e-2, batch=6)
    recipe = recipe_of("bob", {"descriptor": "pet", "batch": 6})
    options = {"model": str(tiny_model), "vae": None, "size": None, "seed": 7, "precision": "fp32"}
    fresh = LoraRun(
        read_examples(pets), recipe, tmp_path / "y", **options, accelerator=new_accelerator("fp32"), say=print
    )
    objective = fresh._objective(torch.device("cpu"))
    before = mean_loss(objective, range(4))
    fuse_loras([Lora(name="x", path=out)], unet=fresh.parts.unet, text_encoder=fresh.parts.text_encoder)
    assert mean_loss(objective, range(4)) < 0.9 * before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "sdxl"}, "profile is 'sdxl'; it must be one of bob, datadream"),
        ({"learning_rate": 1}, "got learning_rate; a recipe has preserve, template"),
        ({"descriptor": None}, "give --descriptor"),
        ({"scope": "image"}, "scope is 'image'; it must be one of dataset, class"),
        ({"epochs": 3}, "got epochs and steps"),
        ({"rank": 0}, "rank is 0; it must be at least 1"),
        ({"lr": 0.0}, "lr is 0.0; it must be above 0"),
        ({"warmup": 8}, "a warm-up of 8 steps leaves nothing of 8 steps"),
        ({"dist_match": 0.1}, "needs min_snr"),
        ({"precision": "int8"}, "precision is 'int8'"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"template": "a photo"}, "needed is {class}"),
        ({"template": "a photo of a {class}, {mood}"}, "no mood"),
        ({"size": 10}, "multiple of 8 pixels"),
        ({"words": True, "init_word": "the cat"}, "is 2 tokens"),
        ({"shots": 4}, "has 3 image"),
    ],
)
def test_wrong_arguments(pets, tiny_model, tmp_path, options, message):
    with pytest.raises(FastgenError, match=message):
        run(pets, tiny_model, tmp_path / "x", **options)
    assert not (tmp_path / "x" / FILE).exists()


def test_a_model_of_another_kind_is_refused(pets, tiny_model, tmp_path):
    import shutil

    folder = tmp_path / "xl"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "unet" / "config.json").read_text())
    index = json.loads((folder / "model_index.json").read_text())
    index["text_encoder"] = ["transformers", "CLIPTextModelWithProjection"]
    (folder / "model_index.json").write_text(json.dumps(index))
    assert config["cross_attention_dim"] == TEXT_WIDTH
    with pytest.raises(FastgenError, match="CLIPTextModelWithProjection, engines are made from CLIPTextModel"):
        run(pets, folder, tmp_path / "x")


@pytest.mark.slow
def test_kill_minus_nine(trained, pets, tiny_model, tmp_path):
    words = [sys.executable, "-m", "fastgen.cli", "finetune", "lora", "--real", pets, "--out", tmp_path / "x"]
    words += ["--model", tiny_model, "--sample-every", "0", "--save-every", "1"]
    for name, value in SETTINGS.items():
        words += [f"--{name}", value]
    command = [str(word) for word in words]
    root = Path(__file__).resolve().parents[2]
    environ = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, env=environ, cwd=root)
    while not (tmp_path / "x" / "checkpoint.pt").exists() and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    subprocess.run(command, env=environ, cwd=root, check=True)
    assert same(weights(tmp_path / "x"), weights(trained))


@pytest.mark.slow
def test_two_processes_take_the_same_steps(trained, pets, tiny_model, tmp_path):
    root = Path(__file__).resolve().parents[2]
    words = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "fastgen.cli", "finetune", "lora"]
    words += ["--real", pets, "--out", tmp_path / "x", "--model", tiny_model, "--sample-every", "0"]
    for name, value in SETTINGS.items():
        words += [f"--{name}", value]
    environ = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    subprocess.run([sys.executable, *map(str, words)], env=environ, cwd=root, check=True)
    assert json.loads((tmp_path / "x" / "finetune.json").read_text())["finished"]["processes"] == 2
    for name, value in weights(trained).items():
        torch.testing.assert_close(weights(tmp_path / "x")[name], value, rtol=0, atol=2e-3)


def test_pictures_without_captions_need_no_preserve(tiny_model, tmp_path):
    real = make_pets(tmp_path / "real", captions=False)
    with pytest.raises(FastgenError, match="has no captions.jsonl .* --no-preserve"):
        run(real, tiny_model, tmp_path / "x")
    out = run(real, tiny_model, tmp_path / "x", preserve=False, steps=3)
    about = json.loads((out / "finetune.json").read_text())
    assert about["settings"]["recipe"]["template"] == "a {descriptor} photo of a {class}"
