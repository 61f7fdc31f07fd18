"""Loss, weights, schedule, batches and pictures against the libraries that others train with."""

import numpy as np
import pytest
import torch
from PIL import Image

from fastgen.finetune.batches import Batches
from fastgen.finetune.examples import read_examples
from fastgen.finetune.loss import add_noise, matching_loss, snr_weights, target_of
from fastgen.finetune.optimize import Optimizer, pieces
from fastgen.finetune.parts import load_trainable
from fastgen.finetune.pictures import Latents, fit_picture
from fastgen.finetune.recipes import RECIPES
from tests.finetune.pets import make_pets


@pytest.fixture(scope="module")
def scheduler():
    from diffusers import DDPMScheduler

    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def test_noise_and_targets_equal_diffusers(scheduler):
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 4, 5, 5, generator=generator)
    t = torch.tensor([0, 500, 999])
    alphas = scheduler.alphas_cumprod[t]
    torch.testing.assert_close(add_noise(clean, noise, alphas), scheduler.add_noise(clean, noise, t))
    velocity = scheduler.get_velocity(clean, noise, t)
    torch.testing.assert_close(target_of(clean, noise, alphas, prediction="v_prediction"), velocity)
    assert target_of(clean, noise, alphas, prediction="epsilon") is noise


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weights_are_those_of_diffusers_scripts(scheduler, prediction):
    from diffusers.training_utils import compute_snr

    t = torch.arange(1000)
    snr = compute_snr(scheduler, t)
    clipped = torch.stack([snr, 5.0 * torch.ones_like(t)], dim=1).min(dim=1)[0]
    expected = clipped / snr if prediction == "epsilon" else clipped / (snr + 1)
    got = snr_weights(scheduler.alphas_cumprod, 5.0, prediction=prediction)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-7)
    assert snr_weights(torch.zeros(1), 5.0, prediction=prediction).isfinite().all()  # zero terminal SNR


def test_matching_term_compares_sums_over_the_batch():
    output, target, weights = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.tensor([0.5, 1.0, 2.0])
    sums = [sum(w * x for w, x in zip(weights, batch, strict=True)) for batch in (output, target)]
    torch.testing.assert_close(matching_loss(output, target, weights), torch.nn.functional.mse_loss(*sums))
    swapped = target[[1, 0, 2]]  # with equal weights, only the sums count
    assert matching_loss(swapped, target, torch.ones(3)) < 1e-10


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_rates_equal_diffusers(schedule):
    from diffusers.optimization import get_scheduler

    ours = Optimizer(steps=50, lr=1e-4, schedule=schedule, warmup=10)
    adam = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    theirs = get_scheduler(name, adam, num_warmup_steps=10, num_training_steps=50)
    for step in range(50):
        assert ours.rate(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9, abs=1e-15)
        adam.step()
        theirs.step()


@pytest.mark.parametrize(
    ("classes", "shots", "steps"),
    [(100, 5, 2800), (100, 10, 5200), (196, 5, 5200), (196, 10, 10000), (200, 5, 5200), (37, 5, 1200), (37, 10, 2000)],
)
def test_bob_takes_the_papers_number_of_steps(classes, shots, steps):
    """Deviation 2; the card's table for batch 80 and 400 epochs (196 x 5: 12.25, so 13 steps an epoch)."""
    batches = Batches(count=classes * shots, batch=RECIPES["bob"].batch)
    assert RECIPES["bob"].optimizer(batches.steps_per_epoch).steps == steps


def test_profiles_differ_as_the_papers_do():
    """Deviations 1, 2 and 5: BOB trains one LoRA with contexts, DataDream one per class without."""
    bob, datadream = RECIPES["bob"], RECIPES["datadream"]
    assert (bob.scope, bob.epochs, bob.batch, bob.preserve) == ("dataset", 400, 80, True)
    assert (datadream.scope, datadream.epochs, datadream.batch, datadream.preserve) == ("class", 200, 8, False)
    assert (bob.rank, bob.lr, bob.schedule, bob.warmup, bob.text_encoder) == (16, 1e-4, "cosine", 100, True)
    assert bob.needed == ("background", "pose") and datadream.needed == ()


def test_every_epoch_sees_every_picture():
    batches = Batches(count=10, batch=4, seed=3)
    assert batches.steps_per_epoch == 3
    epochs = [np.concatenate([batches.indices(3 * e + i) for i in range(3)]) for e in range(2)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs) and epochs[0].tolist() != epochs[1].tolist()
    assert np.array_equal(Batches(count=10, batch=4, seed=3).indices(7), batches.indices(7))
    one = Batches(count=1, batch=4, repeats=100)
    assert one.indices(0).tolist() == [0] * 4


def test_noise_depends_on_the_step_alone():
    batches = Batches(count=10, batch=4)
    first, again, other = (batches.noise(step, 4, (8, 2, 2)) for step in (5, 5, 6))
    assert torch.equal(first[1], again[1]) and not torch.equal(first[1], other[1])
    assert not torch.equal(*first)
    drawn = torch.cat([batches.timesteps(step, 4, 1000) for step in range(1000)])
    assert drawn.min() < 10 and drawn.max() > 990 and abs(drawn.float().mean() - 499.5) < 20


@pytest.mark.parametrize(("rows", "world", "accumulate"), [(16, 1, 1), (16, 2, 3), (3, 2, 4), (1, 2, 1)])
def test_a_batch_is_divided_without_gaps(rows, world, accumulate):
    parts = [part for rank in range(world) for part in pieces(rows, rank, world, accumulate)]
    assert [i for part in parts for i in range(rows)[part]] == list(range(rows))
    assert all(part.stop > part.start for part in parts)


def test_crops_are_torchvisions_and_squashes_are_whole():
    from torchvision.transforms import functional as tv

    pixels = np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    got = fit_picture(image, 32, fit="crop", crop=(0.5, 0.5))
    resized = tv.resize(image, 32)
    left = (resized.width - 32 + 1) // 2
    torch.testing.assert_close(got, tv.to_tensor(tv.crop(resized, 0, left, 32, 32)) * 2 - 1)
    corners = [fit_picture(image, 32, fit="crop", crop=(at, 0.0)) for at in (0.0, 0.999999)]
    torch.testing.assert_close(corners[1], tv.to_tensor(resized)[:, :, -32:] * 2 - 1)
    assert not torch.equal(*corners) and got.shape == fit_picture(image, 32, fit="squash").shape


def test_kept_latents_equal_fresh_ones_and_free_crops_are_not_kept(tiny_model, tmp_path):
    parts = load_trainable(tiny_model)
    device = torch.device("cpu")

    def draw(real, *, step, rows=slice(None), keep=True, **options):
        examples = read_examples(real).rows
        batches = Batches(count=len(examples), batch=6, seed=1)
        latents = Latents(parts.vae, examples, size=parts.size, device=device, **options)
        assert latents.cached == (options["fit"] == "squash" or real.name == "square")
        latents._moments = latents._moments if keep else None
        posterior, _ = batches.noise(step, 6, latents.shape)
        return latents.draw(batches, step, rows, posterior[rows])

    square = make_pets(tmp_path / "square")
    kept = draw(square, step=2, fit="crop", flip=True)
    torch.testing.assert_close(draw(square, step=2, fit="crop", flip=True, keep=False), kept, rtol=0, atol=1e-5)
    torch.testing.assert_close(draw(square, step=2, rows=slice(2, 4), fit="crop", flip=True), kept[2:4])
    assert not torch.allclose(draw(square, step=2, fit="crop", flip=False), kept, atol=1e-2)
    wide = make_pets(tmp_path / "wide", size=(100, 64))
    assert draw(wide, step=0, fit="crop", flip=False).shape == (6, 8, 16, 16)
