"""The denoising loop never asks the device for a number: a GPU can run ahead of the host."""

import pytest
import torch

from fastgen.generate.denoise import Conditions, denoise, start_noise
from fastgen.generate.schedulers import SCHEDULERS, Schedule

CONFIG = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_nothing_in_the_loop_reads_from_the_device(scheduler):
    """Tensors on `meta` have no content: an .item(), a comparison in an `if` or a .cpu() of one raises."""
    rows = 2

    def tensor(*shape):
        return torch.empty(rows, *shape, device="meta")

    def unet(*, sample, timestep, text_embeds, image_embeds, ip_scale):
        assert len(timestep) == len(sample) == 2 * rows and timestep.device.type == "cpu"
        return sample * ip_scale[:, None, None, None]

    conditions = Conditions(
        text=tensor(77, 8),
        image=tensor(4, 8),
        ip_scale=tensor(),
        guidance=tensor(),
        negative_text=tensor(77, 8),
        no_image=torch.empty(1, 4, 8, device="meta"),
        late_text=tensor(77, 8),
        switch=tensor(),
    )
    generators = [torch.Generator().manual_seed(i) for i in range(rows)]
    schedule = Schedule(scheduler, CONFIG, steps=4)
    noise = start_noise(generators, (4, 8, 8)).to("meta") * schedule.start_scale
    latents = denoise(unet, noise, schedule, conditions=conditions, generators=generators)
    assert latents.shape == (rows, 4, 8, 8) and latents.device.type == "meta"


def test_a_number_asked_of_the_device_would_be_found():
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.empty(2, device="meta").sum().item()
