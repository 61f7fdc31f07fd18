"""Guidance intervals: what runs at which step, and that the whole schedule as interval changes nothing."""

import pytest
import torch

from fastgen.errors import FieldErrors
from fastgen.generate.batch import complete_row
from fastgen.generate.run import generate
from fastgen.generate.schedulers import Schedule
from fastgen.records import Row
from tests.fake_engine import FakeEngine, reference
from tests.generate.test_generate import make_row


def calls_of(rows, batch=8):
    """Images, and ("unet", rows) of every call of the UNet."""
    engine = FakeEngine(batch=batch)
    images = [sample.image for sample in generate(rows, engine, reference)]
    return images, [call for call in engine.calls if call[0] == "unet"]


def rows_with(count=3, **fields):
    return [make_row(i, FakeEngine(), **{"steps": 10, "guidance_scale": 4.0, **fields}) for i in range(count)]


def test_only_the_conditional_half_runs_outside_of_the_interval():
    _, calls = calls_of(rows_with(guidance_interval=[0.2, 0.8]))
    assert calls == [("unet", 3)] * 2 + [("unet", 6)] * 6 + [("unet", 3)] * 2


def test_guidance_of_one_runs_the_conditional_half_only():
    assert calls_of(rows_with(guidance_scale=1.0))[1] == [("unet", 3)] * 10


def test_the_whole_schedule_as_interval_is_no_interval():
    plain, _ = calls_of(rows_with())
    whole, _ = calls_of(rows_with(guidance_interval=[0.0, 1.0]))
    other, _ = calls_of(rows_with(guidance_interval=[0.0, 0.9]))
    assert all((a == b).all() and (a != c).any() for a, b, c in zip(plain, whole, other, strict=True))


def test_rows_with_other_intervals_are_no_batch():
    rows = rows_with(2, guidance_interval=[0.2, 0.8]) + rows_with(2, guidance_interval=[0.2, 0.7])
    sizes = {size for _, size in calls_of(rows)[1]}
    assert sizes == {2, 4}


@pytest.mark.parametrize("scheduler", ["ddim", "pndm", "dpmsolver++_karras"])
def test_the_interval_means_noise_levels_for_img2img_too(scheduler):
    """At strength 0.5 the first half of the schedule, and what of the interval lies in it, is not run."""
    config = FakeEngine().scheduler_config
    whole, half = (Schedule(scheduler, config, steps=10, strength=strength) for strength in (None, 0.5))
    assert whole.shares[0] == 0 and whole.shares[-1] < 1 and len(whole.shares) == len(whole.timesteps)
    assert half.shares == whole.shares[-len(half.timesteps) :]
    assert torch.equal(half.timesteps, whole.timesteps[-len(half.timesteps) :])


def test_an_interval_of_img2img_lies_in_the_steps_that_are_run():
    fields = {"mode": "img2img", "strength": 0.5, "guidance_interval": [0.0, 0.7]}
    assert calls_of(rows_with(**fields))[1] == [("unet", 6)] * 2 + [("unet", 3)] * 3


def test_the_row_keeps_what_it_asked_for():
    row = make_row(0, FakeEngine(), guidance_interval=[0, 0.5])
    obj = row.to_json()
    assert obj["guidance_interval"] == [0.0, 0.5]
    engine = FakeEngine()
    assert complete_row(Row.from_json(obj, None), engine.spec, engine.scheduler_config) == row


@pytest.mark.parametrize("value", [[0.8, 0.2], [0.5, 0.5], [0.2], [0, 1.5], "0.2-0.8", 0.5, [True, 1], [0, "1"]])
def test_a_bad_interval_is_refused(value):
    obj = {"class": "cat", "prompt": "a cat", "guidance_interval": value}
    with pytest.raises(FieldErrors, match="0 <= lo < hi <= 1, for example"):
        Row.from_json(obj, None)
