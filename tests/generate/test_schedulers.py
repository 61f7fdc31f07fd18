"""Schedulers are the ones that diffusers' own from_config makes, without what that method loads."""

import subprocess
import sys

import diffusers
import pytest
import torch

from fastgen.generate.schedulers import SCHEDULERS, Schedule

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
CONFIGS = {
    "sd15": {"_class_name": "PNDMScheduler", **BETAS, "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None},
    "sd21": {"_class_name": "DDIMScheduler", **BETAS, "prediction_type": "v_prediction", "clip_sample": False},
    "dpm": {"_class_name": "DPMSolverMultistepScheduler", **BETAS, "solver_order": 3, "lower_order_final": True},
    "used": {"_class_name": "DDIMScheduler", **BETAS, "steps_offset": 7, "_use_default_values": ["steps_offset"]},
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_is_what_from_config_makes(name, config):
    kind, extra = SCHEDULERS[name]
    theirs = getattr(diffusers, kind).from_config({**config, **extra})
    theirs.set_timesteps(7)
    ours = Schedule(name, {**config, "_diffusers_version": "0.20.0"}, steps=7)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    mine = ours._scheduler
    own = {key: value for key, value in theirs.config.items() if not key.startswith("_")}
    expected = theirs.__class__.extract_init_dict(own)[0]
    assert {key: mine.config[key] for key in expected} == expected
    for values in ("alphas_cumprod", "sigmas", "final_alpha_cumprod"):
        if hasattr(theirs, values):
            assert torch.equal(getattr(mine, values), getattr(theirs, values)), values


def test_what_a_row_asks_for_wins_over_a_default_of_the_config():
    config = {"_class_name": "DPMSolverMultistepScheduler", **BETAS, "_use_default_values": ["use_karras_sigmas"]}
    assert Schedule("dpmsolver++_karras", config, steps=5)._scheduler.config.use_karras_sigmas


def test_a_schedule_loads_no_scipy():
    """It takes most of a second, and DDIM has no use for it."""
    code = (
        "import sys; from fastgen.generate.schedulers import Schedule; "
        f"Schedule('ddim', {CONFIGS['sd21']!r}, steps=3); "
        "others = ('scipy.stats', 'diffusers.schedulers.scheduling_unipc_multistep'); "
        "print([name for name in others if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
