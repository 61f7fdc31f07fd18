"""Guidance in the weights: what is learnt is what diffusers computes, and the command's LoRA fuses."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from fastgen.engine.lora import parse_loras
from fastgen.engine.model import load_model
from fastgen.engine.model_files import EMBEDDED, find_sources
from fastgen.finetune.parts import add_lora, load_trainable
from repro.mini import guidance

MINI = EMBEDDED / "mini"


def test_the_target_is_one_guided_step_of_diffusers_pipeline(tmp_path: Path) -> None:
    parts = load_trainable(str(MINI))
    add_lora(parts.unet, guidance.TARGETS, rank=2, alpha=2.0, seed=0)
    for name, weight in parts.unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)  # so that it counts whether the LoRA is off
    args = argparse.Namespace(work=tmp_path, pictures=4, batch=1)
    loss = guidance.GuidanceLoss(parts, args)
    pipe = StableDiffusionPipeline.from_pretrained(MINI, safety_checker=None, image_encoder=None)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    noisy, prompt = torch.randn_like(loss.latents[:1].float()), "a photo of a pug on the beach"
    found = {}

    def keep(pipe, step, t, tensors):
        found.update(tensors)
        return {}

    pipe.set_progress_bar_config(disable=True)
    one = {"num_inference_steps": 1, "guidance_scale": 3.0, "output_type": "latent"}
    pipe(prompt, latents=noisy, callback_on_step_end=keep, **one)
    t = pipe.scheduler.timesteps[:1]
    velocity = loss.guided(noisy, t, loss._encode(parts.token_ids([prompt])))
    step = pipe.scheduler.step(velocity, t[0], noisy).prev_sample
    torch.testing.assert_close(step, found["latents"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("batch", [1, 5])
def test_timesteps_are_spread_over_the_schedule(batch: int) -> None:
    drawn = np.stack([guidance.draw_timesteps(batch, np.random.default_rng(i)) for i in range(300)])
    assert (drawn * batch // 1000 == np.arange(batch)).all()
    assert drawn.min() < 20 and drawn.max() > 980


def test_the_command_writes_a_lora_that_an_engine_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--work", str(tmp_path), "--model", "mini", "--steps", "2", "--batch", "2", "--pictures", "4"]
    monkeypatch.setattr(sys, "argv", ["guidance", *words, "--threads", "1"])
    guidance.main()
    folder = tmp_path / "guidance-lora"
    before = load_model(find_sources("mini")).modules["unet"].state_dict()
    fused = load_model(find_sources("mini", loras=parse_loras([f"guidance={folder}"]))).modules["unet"].state_dict()
    changed = {name.removesuffix(".weight") for name, value in before.items() if not torch.equal(fused[name], value)}
    ends = {end for end in guidance.TARGETS if any(name.endswith(end) for name in changed)}
    assert ends == set(guidance.TARGETS)
