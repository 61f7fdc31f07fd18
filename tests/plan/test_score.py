"""The CLIP score is the probability of the true class among all classes of the bank."""

import numpy as np
import pytest
from PIL import Image

from fastgen.clip import ScoringClip
from fastgen.errors import FastgenError
from fastgen.plan.references import find_references
from fastgen.plan.score import ClipScorer, class_scores, class_texts
from fastgen.records import Header
from tests.tiny_clip import make_tiny_clip

CLASSES = ("Beagle", "Bombay", "Pug", "Maine Coon", "Boxer")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return ScoringClip.load(make_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny"))


def pictures(count):
    rng = np.random.default_rng(4)
    return [Image.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8)) for _ in range(count)]


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_scores_are_the_softmax_of_open_clips_logits_over_all_classes(clip):
    """Compared with torch's softmax of the logits as open_clip's manual writes them."""
    import torch

    texts = [f"a photo of a {name}" for name in CLASSES]
    images = pictures(4)
    labels = [0, 3, 4, 1]
    vectors = torch.tensor(clip.embed_images(images)), torch.tensor(clip.embed_texts(texts))
    logits = clip.scale * vectors[0].double() @ vectors[1].double().T
    found = ClipScorer(clip, CLASSES).scores(images, labels)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, logits.softmax(-1).numpy()[range(4), labels], rtol=1e-4)
    cosines = ClipScorer(clip, CLASSES, kind="cosine").scores(images, labels)
    np.testing.assert_allclose(cosines, logits.numpy()[range(4), labels] / clip.scale, rtol=1e-4)


def test_fewer_classes_give_higher_scores_so_all_of_the_bank_must_be_there(clip):
    """Card, mistake 2."""
    whole = ClipScorer(clip, CLASSES).scores(pictures(3), [0, 0, 1])
    part = ClipScorer(clip, CLASSES[:2]).scores(pictures(3), [0, 0, 1])
    assert np.all(part > whole)


def test_probabilities_of_all_classes_sum_to_one_at_any_scale():
    rng = np.random.default_rng(0)
    images, texts = unit(rng.normal(size=(6, 8))), unit(rng.normal(size=(5, 8)))
    for scale in (1.0, 100.0, 1e6):
        total = sum(class_scores(images, texts, [label] * 6, scale=scale) for label in range(5))
        np.testing.assert_allclose(total, 1.0)


def test_the_published_range_needs_the_softmax():
    """Cosines of 0.30 against 0.25 give 0.99 with OpenAI's scale of 100."""
    texts = np.eye(3, dtype=np.float32)
    image = np.array([[0.30, 0.25, 0.20]], np.float32)
    assert class_scores(image, texts, [0], scale=100.0)[0] == pytest.approx(0.9933, abs=1e-3)
    assert class_scores(image, texts, [0], scale=100.0, kind="cosine")[0] == pytest.approx(0.30)


def test_clipscore_is_the_cosine_two_and_a_half_times_and_never_negative(clip):
    texts = np.eye(2, dtype=np.float32)
    images = np.array([[0.3, 0.1], [-0.3, 0.1]], np.float32)
    found = class_scores(images, texts, [0, 0], scale=100.0, kind="clipscore")
    np.testing.assert_allclose(found, [0.75, 0.0], rtol=1e-6)
    cosines = ClipScorer(clip, CLASSES, kind="cosine").scores(pictures(3), [0, 1, 2])
    scores = ClipScorer(clip, CLASSES, kind="clipscore").scores(pictures(3), [0, 1, 2])
    np.testing.assert_allclose(scores, 2.5 * np.maximum(cosines, 0))


def test_an_elongated_image_is_cut_to_its_centre_unless_asked_to_be_squashed(clip):
    """Card, mistake 9: scored on the squashed canvas, the bin changes for elongated images."""
    pixels = np.random.default_rng(1).integers(0, 255, (40, 200, 3), np.uint8)
    wide, other = Image.fromarray(pixels), pixels.copy()
    other[:, :60] = other[:, 140:] = 0
    as_it_is, same_centre = ClipScorer(clip, CLASSES).scores([wide, Image.fromarray(other)], [0, 0])
    assert as_it_is == same_centre, "what is beside the centre square does not count"
    squashed = ClipScorer(clip, CLASSES, fit="squash").scores([wide], [0])[0]
    by_hand = ClipScorer(clip, CLASSES).scores([wide.resize((512, 512), Image.Resampling.BILINEAR)], [0])[0]
    assert squashed == by_hand != pytest.approx(as_it_is, rel=1e-5)
    with pytest.raises(FastgenError, match="score fit: got 'crop'; allowed: center_crop, squash"):
        ClipScorer(clip, CLASSES, fit="crop")


def test_a_score_does_not_depend_on_the_images_beside_it_in_any_bit(clip):
    scorer = ClipScorer(clip, CLASSES)
    together = scorer.scores(pictures(3), [0, 1, 2])
    assert [float(scorer.scores([p], [i])[0]) for i, p in enumerate(pictures(3))] == together.tolist()


def test_no_images_have_no_scores(clip):
    assert ClipScorer(clip, CLASSES).scores([], []).shape == (0,)


def test_the_template_and_underscores(clip):
    assert class_texts(["basset_hound", "a{b}"], "a {class}, a {class}") == [
        "a basset hound, a basset hound",
        "a a{b}, a a{b}",
    ]
    with pytest.raises(FastgenError, match="must hold {class}"):
        class_texts(["x"], "a photo")
    with pytest.raises(FastgenError, match="score kind: got 'clip'; allowed: softmax, cosine, clipscore"):
        ClipScorer(clip, CLASSES, kind="clip")
    with pytest.raises(FastgenError, match="score kind: got 'x'"):
        class_scores(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), [0, 1], scale=1.0, kind="x")


def test_a_reference_is_scored_once_as_its_own_class(clip, tmp_path, monkeypatch):
    header = Header(name="t", classes=CLASSES)
    references = find_references("petworld", header, bank_dir=tmp_path, shots=2)
    scorer = ClipScorer(clip, CLASSES)
    seen = []
    true_scores = scorer.scores
    monkeypatch.setattr(scorer, "scores", lambda images, labels: seen.append(labels) or true_scores(images, labels))
    pug = references.of_class("Pug")
    first = [scorer(reference) for reference in pug]
    assert [scorer(reference) for reference in pug] == first
    assert scorer(references.find(pug[0].as_ref())) == first[0]
    assert seen == [[2], [2]]
    assert scorer(references.find(pug[0].id, label=0)) != first[0], "another class, another score"
    assert first[0] == true_scores([pug[0].load()], [2])[0]


def test_texts_are_embedded_once_and_scores_can_be_rounded(clip, monkeypatch):
    calls = []
    true_embed = clip.embed_texts
    monkeypatch.setattr(clip, "embed_texts", lambda texts: calls.append(texts) or true_embed(texts))
    scorer = ClipScorer(clip, CLASSES, decimals=5)
    found = scorer.scores(pictures(2), [0, 1])
    scorer.scores(pictures(2), [0, 1])
    assert len(calls) == 1 and len(calls[0]) == len(CLASSES)
    assert found.tolist() == [round(x, 5) for x in found.tolist()]
