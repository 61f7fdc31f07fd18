"""The recipe of the mini model, against its oracles: diffusers' velocity, open_clip's forward, an uninterrupted run."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fastgen.petworld.attributes import OXFORD_PETS
from repro.mini.assemble import half, write_scoring_clip
from repro.mini.captions import ATTRIBUTES, caption_rng, load_captions, scene_numbers
from repro.mini.clip import agreement, draw_caption, drawn_parts, new_clip, pixels, soft_cross_entropy
from repro.mini.data import TRAIN_SEED, load_images, training_scene
from repro.mini.ip_adapter import conflicting_caption, draw_rows
from repro.mini.tokenizer import make_tokenizer
from repro.mini.training import Average, Progress, learning_rate, step_rng, train
from repro.mini.unet import add_noise, new_scheduler, training_caption, v_loss
from repro.mini.vae import centre_latents, new_vae


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def test_tokenizer_knows_the_breeds_and_never_meets_an_unknown_text(tokenizer) -> None:
    assert len(tokenizer("a photo of a pug").input_ids) == 7
    strange = tokenizer("zyx éü 東京 42!?").input_ids
    assert tokenizer.eos_token_id not in strange[1:-1]
    assert len(tokenizer) <= 2048


def test_loss_is_zero_at_diffusers_velocity_and_weighted_as_min_snr() -> None:
    scheduler = new_scheduler()
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 4, 16, 16, 16)
    t = torch.tensor([5, 300, 700, 990])
    alphas = scheduler.alphas_cumprod[t]
    velocity = scheduler.get_velocity(clean, noise, t)
    assert v_loss(velocity, clean, noise, alphas) < 1e-10
    off = torch.tensor([1.0, 2.0, 3.0, 4.0])
    snr = alphas / (1 - alphas)
    weight = snr.clamp(1, 5) / (snr + 1)
    expected = (off**2 * weight).sum() / weight.sum()
    assert torch.allclose(v_loss(velocity + off[:, None, None, None], clean, noise, alphas), expected, rtol=1e-4)


def test_noise_is_diffusers_noise_at_one_timestep_per_part_of_the_schedule() -> None:
    scheduler = new_scheduler()
    clean = torch.randn(10, 4, 8, 8)
    noisy, noise, t = add_noise(clean, scheduler.alphas_cumprod)
    assert torch.allclose(noisy, scheduler.add_noise(clean, noise, t), atol=1e-6)
    assert (t // 100).tolist() == list(range(10))


def test_agreement_is_what_the_captions_say() -> None:
    names = list(ATTRIBUTES)
    scenes = torch.tensor([[3, 1, 0, 0, 0, 0], [3, 2, 0, 0, 0, 0]], dtype=torch.uint8)
    mentioned = torch.tensor([[n in said for n in names] for said in ({"breed"}, {"breed", "background"})])
    assert names[:2] == ["breed", "background"]
    assert agreement(scenes, mentioned).tolist() == [[True, False], [True, True]]


def test_caption_tables_hold_what_the_pipeline_would_tokenize(tmp_path: Path) -> None:
    table = load_captions(tmp_path, "unet", training_caption, each=3, count=4)
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    for picture in range(4):
        scene = training_scene(TRAIN_SEED, picture)
        texts = [training_caption(scene, caption_rng("unet", picture, number)) for number in range(3)]
        expected = tokenizer(texts, padding="max_length", max_length=77, truncation=True).input_ids
        assert table[picture].tolist() == expected
    assert load_captions(tmp_path, "unet", training_caption, each=3, count=4).equal(table)


def test_tables_of_scenes_and_of_mentioned_parts_say_what_captions_say() -> None:
    numbers, parts = scene_numbers(10, 14), drawn_parts(10, 14)
    for row, picture in enumerate(range(10, 14)):
        scene = training_scene(TRAIN_SEED, picture)
        assert [values[n] for values, n in zip(ATTRIBUTES.values(), numbers[row], strict=True)] == [
            getattr(scene, name) for name in ATTRIBUTES
        ]
        for number in range(parts.shape[1]):
            text = draw_caption(scene, caption_rng("clip", picture, number)).lower()
            if parts[row, number, list(ATTRIBUTES).index("breed")]:
                assert scene.breed.lower().split()[0] in text


def test_pictures_are_rendered_once_and_shorter_sets_are_their_beginning(tmp_path: Path) -> None:
    short = np.array(load_images(tmp_path, TRAIN_SEED, 3))
    longer = load_images(tmp_path, TRAIN_SEED, 5)
    assert np.array_equal(longer[:3], short) and longer.shape == (5, 64, 64, 3)
    (tmp_path / f"images-{TRAIN_SEED}-3.npy").unlink()
    assert np.array_equal(load_images(tmp_path, TRAIN_SEED, 3), short)
    assert not (tmp_path / f"images-{TRAIN_SEED}-3.npy").exists()


def test_minutes_become_the_steps_that_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))  # every look at the clock is a second later
    monkeypatch.setattr("repro.mini.training.time.time", lambda: float(next(clock)))
    progress = Progress("toy", argparse.Namespace(steps=10_000, minutes=10.0))
    for step in range(1, 101):
        progress.note(step, torch.zeros(()))
    # the second 50 steps took one look at the clock
    assert progress.steps == pytest.approx(100 + 600 * 50, rel=0.02)


def test_soft_cross_entropy_equals_torch_for_one_hot_targets() -> None:
    logits = torch.randn(5, 5)
    expected = nn.functional.cross_entropy(logits, torch.arange(5))
    assert torch.allclose(soft_cross_entropy(logits, torch.eye(5)), expected)


def test_centring_keeps_reconstructions_and_standardises_latents() -> None:
    torch.manual_seed(0)
    vae = new_vae().eval()
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        before = vae.encode(x).latent_dist
        image = vae.decode(before.mode()).sample
        centre_latents(vae, images)
        after = vae.encode(x).latent_dist
        assert torch.allclose(vae.decode(after.mode()).sample, image, atol=1e-3)
    assert after.mode().mean((0, 2, 3)).abs().max() < 1e-4
    assert abs(after.mode().std().item() - 1) < 1e-3
    ratio = after.std / before.std
    assert torch.allclose(ratio, ratio.mean().expand_as(ratio), rtol=1e-3)


def test_scoring_clip_equals_the_trained_one(tokenizer, tmp_path: Path) -> None:
    import open_clip

    torch.manual_seed(0)
    clip = new_clip(tokenizer).eval()
    clip.load_state_dict({k: v.float() for k, v in half(clip.state_dict()).items()})
    write_scoring_clip(clip, tokenizer, tmp_path / "clip")
    model = open_clip.create_model(f"local-dir:{tmp_path / 'clip'}").eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'clip'}")(["a photo of a pug", "a cat, sketch"])
    x = pixels(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))
    with torch.no_grad():
        ours = clip.get_text_features(tokens), clip.get_image_features(x)
        theirs = model.encode_text(tokens), model.encode_image(x)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_a_conflicting_caption_never_names_the_pictures_place_or_pose() -> None:
    scene = replace(training_scene(0, 1), background="kitchen", pose="sitting", style="photo")
    for i in range(200):
        text = conflicting_caption(scene, np.random.default_rng(i)).lower()
        assert "kitchen" not in text and "sitting" not in text


def test_adapter_rows_have_the_promised_shares() -> None:
    breeds = scene_numbers(0, 200)[:, 0]
    members = [np.flatnonzero(breeds == b) for b in range(len(OXFORD_PETS))]
    rows = draw_rows(breeds, members, 4000, np.random.default_rng(0))
    far = rows.kind == 0
    assert abs(far.mean() - 0.25) < 0.03 and abs((rows.kind == 1).mean() - 0.2) < 0.03
    assert ((rows.scale[far] >= 0.1) & (rows.scale[far] <= 0.4)).all()
    assert (breeds[rows.reference] == breeds[rows.target]).all()
    assert (rows.reference[far] != rows.target[far]).mean() > 0.5
    assert (rows.reference[~far] == rows.target[~far]).all()
    assert ((rows.scale[~far] >= 0.7) & (rows.scale[~far] <= 1)).all() and abs((rows.scale == 1).mean() - 0.375) < 0.03
    assert abs(rows.drop_image.mean() - 0.1) < 0.02 and abs(rows.drop_text.mean() - 0.1) < 0.02
    assert abs((rows.drop_image & rows.drop_text).mean() - 0.05) < 0.02


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    def weights(work: Path, stops: tuple[int, ...]) -> dict[str, torch.Tensor]:
        average: Average | None = None
        for steps in stops:
            torch.manual_seed(1)
            model = nn.Linear(4, 2)

            def loss_at(step: int, model: nn.Module = model) -> torch.Tensor:
                x = torch.from_numpy(step_rng("toy", step).normal(size=(8, 4))).float()
                return (model(x) + torch.randn(8, 2)).square().mean()

            args = argparse.Namespace(work=work, steps=steps, minutes=0.0, batch=8, lr=1e-2)
            average = train("toy", model, loss_at, args, decay_from=1.0)
        assert average is not None
        return average.weights

    whole, parts = weights(tmp_path / "a", (30,)), weights(tmp_path / "b", (10, 20, 30))
    for name, value in whole.items():
        assert torch.equal(value, parts[name])


def test_learning_rate_warms_up_stays_and_falls() -> None:
    rates = [learning_rate(step, 1000, 1.0, warmup=100, decay_from=0.6) for step in range(1000)]
    assert rates[0] == 0.01 and rates[100] == rates[599] == 1.0
    assert rates[999] < 0.03 and sorted(rates[599:], reverse=True) == rates[599:]
