"""Recipes have the papers' values, every field can be set, and what cannot be is refused."""

import json

import pytest

from fastgen.errors import FastgenError
from fastgen.train.recipe import Recipe, with_settings
from fastgen.train.recipes import GRIDS, MINI_RESNET, choose_recipe, grid_points, named_recipe


def test_bob_trains_each_kind_as_its_paper_says():
    clip, cnn, vit = (named_recipe("bob", kind) for kind in ("clip", "cnn", "vit"))
    assert (clip.tune, clip.head, clip.lora_rank, clip.lora_alpha, clip.lora_dropout) == ("lora", "cosine", 16, 32, 0.1)
    assert (cnn.tune, cnn.bn, vit.tune, vit.drop_path, vit.label_smoothing) == ("full", "train", "full", 0.1, 0.1)
    assert {(r.batch, r.epochs, r.schedule, r.optimizer, r.mix) for r in (clip, cnn, vit)} == {
        (64, 100, "cosine", "adamw", "replicate")
    }
    assert (clip.warmup, cnn.warmup, vit.warmup) == (3, 3, 5)
    assert (clip.mix_p, vit.mix_p, vit.mixup, vit.cutmix, vit.random_erase) == (0.2, 1.0, 0.8, 1.0, 0.25)


def test_mae_scales_its_base_rate_by_the_batch():
    """Card of BOB, mistake 24."""
    vit = named_recipe("mae", "vit")
    assert vit.peak_lr == pytest.approx(5e-4 * 64 / 256)
    assert with_settings(vit, {"batch": 256}).peak_lr == pytest.approx(5e-4)
    assert with_settings(vit, {"lr": 1e-3}).peak_lr == 1e-3


def test_grids_have_the_papers_number_of_points():
    assert [len(grid_points(GRIDS["bob"][kind])) for kind in ("clip", "cnn", "vit")] == [16, 18, 8]


def test_official_dalda_differs_from_the_paper_where_the_card_says():
    paper, official = (named_recipe(f"dalda-{which}", "cnn") for which in ("paper", "official"))
    assert (paper.norm, paper.bn, paper.eval, paper.select) == ("own", "frozen", "full", "auto")
    assert (official.norm, official.bn, official.eval, official.select) == (
        "half", "batch_stats", "resample6400", "best_on_eval",
    )  # fmt: skip
    assert paper.steps == official.steps == 10_000


def test_a_file_starts_from_a_name_and_the_command_has_the_last_word(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"recipe": "bob", "lr": 3e-5, "real_weight": 0.5}))
    found = choose_recipe(str(path), "clip", default=MINI_RESNET, settings={"real_weight": ".8", "steps": "7"})
    assert (found.lr, found.real_weight, found.steps, found.epochs, found.tune) == (3e-5, 0.8, 7, None, "lora")
    path.write_text("[1]")
    with pytest.raises(FastgenError, match="mine.json: a recipe is a JSON object"):
        choose_recipe(str(path), "clip", default=MINI_RESNET)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"colour": "1"}, "a recipe has no field 'colour'; its fields are optimizer, lr"),
        ({"lr": "fast"}, "lr is 'fast'; it must be a number"),
        ({"steps": "1.5"}, "steps is '1.5'; it must be a whole number or null"),
        ({"bn": "train"}, "bn is 'train', but tune is 'linear'"),
        ({"bn": "batch_stats", "tune": "full"}, "with tune full use bn train"),
        ({"real_weight": "0.8"}, "needs mix replicate, got mix 'parent'"),
        ({"real_weight": "1.8", "mix": "replicate"}, "real_weight is 1.8; it must be 0 to 1"),
        ({"steps": "3", "epochs": "3"}, "got steps 3 and epochs 3; give one of them"),
        ({"select": "best_on_test"}, "select is 'best_on_test'; it must be one of auto, last, best_on_val"),
        ({"real_repeat": "0"}, "real_repeat is 0; it must be floor, exact or a whole number"),
        ({"layer_decay": "0.7"}, "layer_decay needs tune full"),
    ],
)
def test_what_cannot_be_set_is_refused(settings, message):
    with pytest.raises(FastgenError, match=message):
        with_settings(MINI_RESNET, settings)


def test_unknown_recipes_are_named():
    with pytest.raises(FastgenError, match="recipe is 'alice'; it must be one of dalda-paper"):
        choose_recipe("alice", "cnn", default=Recipe())
    with pytest.raises(FastgenError, match="recipe mae is for a vision transformer .* kind cnn"):
        choose_recipe("mae", "cnn", default=Recipe())
