"""Tests of the PetWorld caption grammar."""

import re

import numpy as np
import pytest

from fastgen.petworld import wording
from fastgen.petworld.attributes import (
    BACKGROUNDS,
    LIGHTS,
    NOVEL_PETS,
    OXFORD_PETS,
    POSES,
    SIDES,
    STYLES,
    Scene,
)
from fastgen.petworld.captions import PARTS, caption, captions, species_of, vocabulary_corpus, with_article

# Words that only a caption of a scene with that value may contain.
TELLING = {
    "pose": {
        "sitting": r"sit\w*|seated|perched|haunches",
        "standing": r"stand\w*|all fours",
        "lying": r"lying|lies|laying|curled|stretched|sleep\w*|nap\w*|dozes|dozing|loung(es|ing)|sprawled"
        r"|snoozing|rest(s|ing)(?! on its)",
        "running": r"run\w*|trot\w*|sprint\w*|dash\w*|rac(es|ing)|gallop\w*|chas\w+|rushing",
        "jumping": r"jump\w*|leap\w*|bounc\w+|hop(s|ping)|mid-air|springing",
    },
    "background": {
        "meadow": r"meadow|grass|grassy|lawn|garden|park|pasture|wildflowers|flower\w*|green field",
        "beach": r"beach|shore|seaside|sea|ocean|coast\w*|waves",
        "forest": r"forest|woods|woodland|trees|ferns|twigs|leaves",
        "street": r"street|sidewalk|town|urban|alley|city|road|pavement|paved|paving|houses|shops",
        "snow": r"snow\w*|winter|frost\w*",
        "lake": r"lake\w*|pond|river|dock|reeds",
        "sofa": r"sofa|couch|armchair|living room|indoors|home(?! kitchen)|cushions?|lounge|bedroom|rug|blanket",
        "kitchen": r"kitchen|fridge|stove|til(es|ed)|food bowl",
        "desert": r"desert|cact\w+|arid|canyon|dry sand",
        "night": r"night|stars|starry|moon\w*|dark",
    },
    "style": {
        "photo": r"photo\w*|snapshot|realistic|sharp focus|shot|blurred|professional",
        "art painting": r"art painting|oil|acrylic|fine art|canvas|artistic|a painting|painted portrait",
        "cartoon": r"cartoon|comic|animated",
        "sketch": r"sketch|pencil|charcoal|hand-drawn|line drawing",
        "watercolor": r"watercolou?r",
        "pixel art": r"pixel\w*|8-bit|sprite|retro",
        "3d render": r"3d|cgi|render\w*",
        "cyberpunk": r"cyberpunk|neon|futuristic",
    },
    "light": {
        "bright": r"bright\w*|sun(ny|lit|shine)",
        "soft": r"soft\w*|gentle light|hazy",
        "golden": r"golden\S*",
        "dim": r"dim\w*|low light",
    },
    "side": {"left": r"left", "right": r"right"},
}
PATTERNS = {
    part: {value: re.compile(rf"\b(?:{words})\b") for value, words in values.items()}
    for part, values in TELLING.items()
}
BREEDS = (*OXFORD_PETS, *NOVEL_PETS)


def _scene(rng: np.random.Generator, style: str | None = None) -> Scene:
    def pick(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    return Scene(
        breed=pick(BREEDS),
        pose=pick(POSES),
        background=pick(BACKGROUNDS),
        style=style or pick(STYLES),
        side=pick(SIDES),
        light=pick(LIGHTS),
        x=0.5,
        y=0.0,
        size=1.0,
        detail_seed=1,
    )


def _samples(seed: int, n: int, word_choice: str) -> list[tuple[Scene, frozenset[str], str]]:
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(n):
        scene = _scene(rng)
        parts = frozenset(part for part in sorted(PARTS) if rng.random() < 0.5)
        samples.append((scene, parts, caption(scene, rng, parts=parts, wording=word_choice)))
    return samples


@pytest.mark.parametrize("word_choice", ["train", "unseen"])
def test_mentions_the_asked_parts_and_nothing_else(word_choice: str) -> None:
    for scene, parts, text in _samples(0, 8000, word_choice):
        lower = text.lower()
        assert (scene.breed.lower() in lower) == ("breed" in parts), text
        rest = lower.replace(scene.breed.lower(), "")
        assert not any(breed.lower() in rest for breed in BREEDS if len(breed) > 3), text
        for part, values in PATTERNS.items():
            said = {value for value, pattern in values.items() if pattern.search(rest)}
            expected = {getattr(scene, part)} if part in parts else set()
            assert said == expected, (part, said, expected, text)


@pytest.mark.parametrize("word_choice", ["train", "unseen"])
def test_names_the_right_species(word_choice: str) -> None:
    for scene, _, text in _samples(1, 4000, word_choice):
        rest = text.lower().replace(scene.breed.lower(), "")
        wrong = {"cat": "dog", "dog": "cat"}[species_of(scene.breed)]
        assert not re.search(rf"\b{wrong}\b", rest), text


@pytest.mark.parametrize("word_choice", ["train", "unseen"])
def test_is_clean_english_of_limited_length(word_choice: str) -> None:
    for _, _, text in _samples(2, 8000, word_choice):
        assert len(text.split()) <= 45, text
        assert "  " not in text and " ," not in text and ",," not in text and "{" not in text, text
        assert text == text.strip(), text
        assert not re.search(r"\b[Aa] [aeioAEIO]", text), text
        assert not re.search(r"\b[Aa]n [^aeiouAEIOU8]", text), text


def test_longest_captions_fit() -> None:
    rng = np.random.default_rng(3)
    for i in range(8000):
        text = caption(_scene(rng), rng, parts=PARTS, wording=("train", "unseen")[i % 2])
        assert len(text.split()) <= 45, text


def test_train_and_unseen_wordings_are_disjoint() -> None:
    for key, frames in wording.TRAIN_FRAMES.items():
        assert not set(frames) & set(wording.UNSEEN_FRAMES[key])
    assert not set(wording.BEHIND_CLAUSES) & set(wording.UNSEEN_BEHIND_CLAUSES)
    assert not set(wording.NOISE) & set(wording.UNSEEN_NOISE)
    rng = np.random.default_rng(4)
    scene = _scene(rng)
    train = {caption(scene, rng).lower() for _ in range(20_000)}
    unseen = {caption(scene, rng, wording="unseen").lower() for _ in range(5000)}
    assert not train & unseen


def test_is_deterministic() -> None:
    assert _samples(5, 50, "train") == _samples(5, 50, "train")
    scene = _scene(np.random.default_rng(6))
    assert captions(scene, 7, 8) == captions(scene, 7, 8)
    assert captions(scene, 7, 8) != captions(scene, 8, 8)
    assert list(vocabulary_corpus(1, 20)) == list(vocabulary_corpus(1, 20))


def test_evaluation_templates_occur_in_training() -> None:
    rng = np.random.default_rng(8)
    drawn = []
    for _ in range(5000):
        scene = _scene(rng, style="photo")
        drawn.append((scene, caption(scene, rng)))
    exact = sum(text == f"a photo of {with_article(scene.breed)}" for scene, text in drawn) / len(drawn)
    general = sum(text == "a photo of a pet" for _, text in drawn) / len(drawn)
    assert 0.04 < exact < 0.12
    assert 0.013 < general < 0.05
    prefixed = sum(text.startswith("best quality") for _, text in drawn) / len(drawn)
    assert 0.06 < prefixed < 0.14


def test_captions_are_distinct_with_and_without_background() -> None:
    rng = np.random.default_rng(9)
    for seed in range(50):
        scene = _scene(rng)
        found = captions(scene, seed, 6)
        assert len(set(found)) == len(found) == 6
        pattern = PATTERNS["background"][scene.background]
        mentions = [bool(pattern.search(text.lower())) for text in found]
        assert any(mentions) and not all(mentions), found


def test_corpus_knows_every_breed() -> None:
    lines = list(vocabulary_corpus(0, 20_000))
    assert len(lines) == 20_000 + 10 * len(wording.COMMON_ENGLISH)
    text = "\n".join(lines).lower()
    assert all(breed.lower() in text for breed in BREEDS)
    assert sum(len(line.split()) for line in wording.COMMON_ENGLISH) >= 400


def test_articles() -> None:
    assert with_article("Abyssinian") == "an Abyssinian"
    assert with_article("pug") == "a pug"
    assert with_article("8-bit picture") == "an 8-bit picture"
    assert with_article("European cat") == "a European cat"


def test_tables_cover_every_value() -> None:
    assert set(wording.PARTICIPLES) == set(wording.FINITES) == set(POSES)
    for table in (wording.PLACES, wording.PATHS, wording.SETTINGS, wording.BEHIND, wording.FOREGROUND):
        assert set(table) == set(BACKGROUNDS)
    assert set(wording.STYLE_NOUNS) == set(wording.STYLE_SUFFIXES) == set(STYLES)
    assert set(wording.LIGHT_PHRASES) == set(wording.LIGHT_ADJECTIVES) == set(LIGHTS)


def test_rejects_unknown_arguments() -> None:
    rng = np.random.default_rng(0)
    scene = _scene(rng)
    with pytest.raises(ValueError, match="wording"):
        caption(scene, rng, wording="other")
    with pytest.raises(ValueError, match="unknown caption parts"):
        caption(scene, rng, parts=frozenset({"colour"}))
