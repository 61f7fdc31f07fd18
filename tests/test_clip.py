"""`ScoringClip` is open_clip's own forward pass and nothing else."""

import numpy as np
import pytest
import torch
from PIL import Image

from fastgen.clip import ScoringClip
from fastgen.errors import ModelError
from tests.tiny_clip import make_tiny_clip

TEXTS = ["a photo of a Beagle", "a photo of a Bombay", "a sketch of a house by the sea"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def clip(folder):
    return ScoringClip.load(folder)


def pictures(count=5):
    rng = np.random.default_rng(0)
    sizes = [(48, 48), (90, 40), (33, 71), (32, 32), (200, 60), (64, 64)]
    return [Image.fromarray(rng.integers(0, 255, (h, w, 3), np.uint8)) for w, h in sizes[:count]]


@pytest.fixture(scope="module")
def reference(folder):
    """The model, preprocessing and tokenizer as a user of open_clip gets them."""
    import open_clip

    name = f"local-dir:{folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    return model.eval(), preprocess, open_clip.get_tokenizer(name)


def test_images_texts_and_scale_are_those_of_open_clips_forward(clip, reference):
    model, preprocess, tokenizer = reference
    with torch.inference_mode():
        image, text, scale = model(torch.stack([preprocess(p) for p in pictures()]), tokenizer(TEXTS))
    np.testing.assert_allclose(clip.embed_images(pictures()), image.numpy(), atol=2e-6)
    np.testing.assert_allclose(clip.embed_texts(TEXTS), text.numpy(), atol=2e-6)
    assert clip.scale == pytest.approx(float(scale))
    assert clip.scale == pytest.approx(np.exp(clip.logit_scale))


def test_vectors_are_float32_of_length_one_and_differ(clip):
    for found in (clip.embed_images(pictures()), clip.embed_texts(TEXTS)):
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
        assert (found @ found.T)[0, 1:].max() < 0.999


def test_the_batch_size_does_not_change_the_result(clip):
    np.testing.assert_allclose(clip.embed_images(pictures(), batch=2), clip.embed_images(pictures()), atol=2e-6)
    np.testing.assert_allclose(clip.embed_texts(TEXTS, batch=1), clip.embed_texts(TEXTS), atol=2e-6)


def test_with_batch_one_a_vector_does_not_depend_on_its_neighbours_in_any_bit(clip):
    alone = clip.embed_images(pictures()[2:3], batch=1)
    np.testing.assert_array_equal(clip.embed_images(pictures(), batch=1)[2:3], alone)


def test_the_middle_is_cropped_from_the_image_as_it_is_not_from_a_squashed_copy(clip):
    """Card, mistake 9: what lies outside the middle square of an elongated image must not count."""
    wide = np.zeros((32, 96, 3), np.uint8)
    wide[:, 32:64] = np.random.default_rng(1).integers(0, 255, (32, 32, 3))
    other = wide.copy()
    other[:, :24], other[:, 72:] = 255, 90
    first, second = clip.embed_images([Image.fromarray(wide), Image.fromarray(other)])
    np.testing.assert_allclose(first, second, atol=1e-6)
    squashed = clip.embed_images([Image.fromarray(other).resize((32, 32))])[0]
    assert float(first @ squashed) < 0.9999


def test_nothing_in_gives_nothing_out(clip):
    assert clip.embed_images([]).shape == (0, 24)
    assert clip.embed_texts([]).shape == (0, 24)


def test_loading_is_repeatable(folder, clip):
    again = ScoringClip.load(str(folder))
    np.testing.assert_array_equal(again.embed_texts(TEXTS), clip.embed_texts(TEXTS))


def test_an_architecture_of_open_clip_takes_a_weights_file(tmp_path):
    import open_clip
    from safetensors.torch import save_file

    name = "ViT-S-32-alt"
    if name not in open_clip.list_models():
        pytest.skip(f"this open_clip has no {name}")
    model = open_clip.create_model(name)
    weights = {key: value.contiguous().clone() for key, value in model.state_dict().items()}
    save_file(weights, tmp_path / "w.safetensors")
    loaded = ScoringClip.load(f"{name}={tmp_path / 'w.safetensors'}")
    with torch.inference_mode():
        want = model.eval().encode_text(open_clip.get_tokenizer(name)(TEXTS), normalize=True).numpy()
    np.testing.assert_allclose(loaded.embed_texts(TEXTS), want, atol=2e-6)


@pytest.mark.parametrize(
    "source, message",
    [
        ("no-such-model", "'no-such-model' is no folder and no model of open_clip; allowed: a folder with"),
        ("ViT-B-16", "no weights given; write ViT-B-16=FILE, or a tag: openai"),
        ("ViT-B-16=gone.safetensors", "'gone.safetensors' is neither a file nor a tag"),
    ],
)
def test_a_wrong_name_says_what_is_allowed(source, message):
    with pytest.raises(ModelError) as error:
        ScoringClip.load(source)
    assert message in str(error.value)


def test_a_folder_without_config_or_weights_is_refused_and_never_random(folder, tmp_path):
    with pytest.raises(ModelError, match="has no open_clip_config.json"):
        ScoringClip.load(tmp_path)
    (tmp_path / "open_clip_config.json").write_bytes((folder / "open_clip_config.json").read_bytes())
    with pytest.raises(ModelError, match="has no weights"):
        ScoringClip.load(tmp_path)
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="allowed: a folder with"):
        ScoringClip.load(tmp_path)
