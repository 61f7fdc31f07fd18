"""The distillation into few steps, against diffusers' own schedulers, and from the command to fused weights."""

import sys

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler

from fastgen.engine.lora import parse_loras
from fastgen.engine.model import load_model
from fastgen.engine.model_files import find_sources
from fastgen.finetune.loss import add_noise
from repro.mini import few_step
from repro.mini.unet import new_scheduler


@pytest.mark.parametrize("t", [19, 259, 999])
def test_an_answer_is_what_lcm_scheduler_makes_of_the_same_prediction(t: int) -> None:
    noisy, velocity = torch.randn(2, 3, 4, 8, 8)
    scheduler = LCMScheduler.from_config(new_scheduler().config)
    scheduler.set_timesteps(50)
    expected = scheduler.step(velocity, torch.tensor(t), noisy).denoised
    times = torch.full((3,), t)
    skip, out = few_step.boundary_scalings(times)
    answer = skip * noisy + out * few_step.split(noisy, velocity, scheduler.alphas_cumprod[times])[0]
    assert torch.allclose(answer, expected, atol=1e-5)


def test_the_answer_at_the_end_of_a_path_is_its_input() -> None:
    skip, out = few_step.boundary_scalings(torch.tensor([0, 0]))
    assert (skip == 1).all() and (out == 0).all()


def test_a_step_of_the_teacher_is_one_of_25_of_ddim() -> None:
    scheduler = DDIMScheduler.from_config(new_scheduler().config, timestep_spacing="trailing")
    scheduler.set_timesteps(25)
    noisy, velocity = torch.randn(2, 3, 4, 8, 8)
    t = int(scheduler.timesteps[3])
    alphas = scheduler.alphas_cumprod[[t, t - few_step.SKIP]][:, None].expand(2, 3)
    clean, noise = few_step.split(noisy, velocity, alphas[0])
    assert int(scheduler.timesteps[4]) == t - few_step.SKIP
    assert torch.allclose(add_noise(clean, noise, alphas[1]), scheduler.step(velocity, t, noisy).prev_sample, atol=1e-5)


def test_it_learns_where_lcm_scheduler_stops() -> None:
    scheduler = LCMScheduler.from_config(new_scheduler().config)
    scheduler.set_timesteps(50)
    drawn = few_step.draw_timesteps(5000, np.random.default_rng(0))
    assert set(drawn.tolist()) == set(scheduler.timesteps.tolist())
    few = few_step.draw_timesteps(5, np.random.default_rng(0))
    assert (few // 200).tolist() == list(range(5))


def test_the_command_writes_a_lora_that_an_engine_takes(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--work", str(tmp_path), "--model", "mini", "--steps", "2", "--batch", "2", "--pictures", "4"]
    monkeypatch.setattr(sys, "argv", ["few_step", *words, "--threads", "1"])
    few_step.main()
    folder = tmp_path / "few-step-lora"
    before = load_model(find_sources("mini")).modules["unet"].state_dict()
    fused = load_model(find_sources("mini", loras=parse_loras([f"few-step={folder}"]))).modules["unet"].state_dict()
    changed = {name.removesuffix(".weight") for name, value in before.items() if not torch.equal(fused[name], value)}
    ends = {end for end in few_step.TARGETS if any(name.endswith(end) for name in changed)}
    assert ends == set(few_step.TARGETS)
