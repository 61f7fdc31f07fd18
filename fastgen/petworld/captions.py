"""Captions of PetWorld scenes: a grammar that writes English tags, phrases and LLM-like sentences.

`caption` fills a sentence frame from `wording.py` with words for the attributes it was told to mention. It never
mentions a value that is not the scene's own, and what it does not mention it leaves open. All randomness comes
from the generator that the caller passes.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from fastgen.petworld import breeds
from fastgen.petworld import wording as words
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
from fastgen.petworld.wording import BREED_FORM

TEMPLATE = "a photo of a {class}"
PARTS = frozenset({"breed", "background", "pose", "style", "light", "side"})

_T = TypeVar("_T")
_NOVEL_RATE = 0.03
_WORDS_FOR_EXTRAS = 17
_DRAWS_AT_ONCE = 48
_AFTER_VERB = re.compile(r"\{(?:ing|fin)\} \{place\}").search


class _Wording(NamedTuple):
    """The tables in which training captions and unseen captions differ."""

    frames: dict[tuple[bool, bool], tuple[str, ...]]
    behind_clauses: tuple[str, ...]
    noise: tuple[str, ...]
    setting_adjectives: tuple[str, ...]
    tag_joint: str
    is_train: bool


_WORDINGS = {
    "train": _Wording(
        words.TRAIN_FRAMES, words.BEHIND_CLAUSES, words.NOISE, words.SETTING_ADJECTIVES, ", ", is_train=True
    ),
    "unseen": _Wording(
        words.UNSEEN_FRAMES,
        words.UNSEEN_BEHIND_CLAUSES,
        words.UNSEEN_NOISE,
        words.UNSEEN_SETTING_ADJECTIVES,
        " - ",
        is_train=False,
    ),
}


class _Draw:
    """Cheap scalar draws: uniform numbers that are taken from the generator in blocks."""

    __slots__ = ("_next", "_rng", "_values")

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._values = rng.random(_DRAWS_AT_ONCE).tolist()
        self._next = 0

    def uniform(self) -> float:
        if self._next == _DRAWS_AT_ONCE:
            self._values = self._rng.random(_DRAWS_AT_ONCE).tolist()
            self._next = 0
        self._next += 1
        return self._values[self._next - 1]

    def chance(self, probability: float) -> bool:
        return self.uniform() < probability

    def pick(self, options: Sequence[_T], canonical: float = 0.0) -> _T:
        """Draws an option; with probability `canonical` it is the first one."""
        u = self.uniform()
        if u < canonical:
            return options[0]
        return options[int((u - canonical) / (1.0 - canonical) * len(options))]


def with_article(noun_phrase: str) -> str:
    """Returns the noun phrase with the right indefinite article in front of it."""
    lower = noun_phrase.lower()
    vowel = lower[0] in "aeiou8" and not lower.startswith(("eu", "uni", "one", "use"))
    return f"{'an' if vowel else 'a'} {noun_phrase}"


def species_of(breed: str) -> str:
    """Returns "cat" or "dog"; raises a ValueError for an unknown breed."""
    return breeds.breed(breed).species


def caption(
    scene: Scene, rng: np.random.Generator, *, parts: frozenset[str] | None = None, wording: str = "train"
) -> str:
    """Writes one caption of a scene.

    Args:
        scene: what the caption describes.
        rng: source of all randomness.
        parts: the attributes to mention, a subset of `PARTS`; no others are mentioned. None draws them.
        wording: "train", or "unseen" for sentence frames that no training caption has.

    Returns:
        At most 45 words of English.

    Raises:
        ValueError: for an unknown wording or an unknown part.
    """
    if wording not in _WORDINGS:
        raise ValueError(f"wording must be one of {sorted(_WORDINGS)}, not {wording!r}")
    if parts is not None and not parts <= PARTS:
        raise ValueError(f"unknown caption parts {sorted(parts - PARTS)}; known are {sorted(PARTS)}")
    draw = _Draw(rng)
    if parts is None:
        if wording == "train" and scene.style == "photo":
            u = draw.uniform()
            if u < 0.07:
                return f"a photo of {with_article(scene.breed)}" if u < 0.05 else "a photo of a pet"
        parts = _random_parts(scene, draw)
    tables = _WORDINGS[wording]
    if draw.chance(0.1) and len(parts) > 1:
        return _finish(_tags(scene, parts, draw, tables), draw, tables, sentence=False)
    is_long = draw.chance(0.5)
    text = _sentence(scene, parts, draw, tables, is_long=is_long)
    return _finish(text, draw, tables, sentence=is_long)


def captions(scene: Scene, seed: int, n: int) -> list[str]:
    """Returns n distinct training captions of a scene.

    From four captions on, the last mentions breed, background, pose and style and the one before it mentions
    no background, so that both kinds occur; the others mention what they draw.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    for _ in range(100 * n):
        if len(found) == n:
            break
        parts = None
        if n >= 4 and len(found) == n - 1:
            parts = frozenset({"breed", "background", "pose", "style"})
        elif n >= 4 and len(found) == n - 2:
            parts = frozenset({"breed", "pose"}) if rng.random() < 0.5 else frozenset({"breed", "style"})
        found[caption(scene, rng, parts=parts)] = None
    return list(found)


def vocabulary_corpus(seed: int, n: int) -> Iterator[str]:
    """Yields text to train a tokenizer on.

    Yields n training captions of random scenes, 3 % of them of the invented breeds of `NOVEL_PETS` so that
    their names have tokens, preceded by the lines of `COMMON_ENGLISH` (repeated for every 2 000 captions).
    """
    for _ in range(max(1, n // 2000)):
        yield from words.COMMON_ENGLISH
    rng = np.random.default_rng(seed)
    for _ in range(n):
        draw = _Draw(rng)
        scene = Scene(
            breed=draw.pick(NOVEL_PETS if draw.chance(_NOVEL_RATE) else OXFORD_PETS),
            pose=draw.pick(POSES),
            background=draw.pick(BACKGROUNDS),
            style=draw.pick(STYLES),
            side=draw.pick(SIDES),
            light=draw.pick(LIGHTS),
            x=0.5,
            y=0.0,
            size=1.0,
            detail_seed=0,
        )
        yield caption(scene, rng)


def _random_parts(scene: Scene, draw: _Draw) -> frozenset[str]:
    rates = (
        ("breed", 0.9),
        ("background", 0.65),
        ("pose", 0.65),
        ("style", 0.65 if scene.style == "photo" else 0.85),
        ("light", 0.15),
        ("side", 0.1),
    )
    return frozenset(part for part, rate in rates if draw.chance(rate))


def _subject(scene: Scene, parts: frozenset[str], draw: _Draw) -> str:
    """Draws how the animal is named, without adjective and article."""
    species = species_of(scene.breed)
    if "breed" not in parts:
        general = draw.pick(("pet", "animal"))
        return species if draw.chance(0.6) else general
    lower = scene.breed.lower()
    form = draw.pick(BREED_FORM)
    if lower.endswith(species):
        form = form.removesuffix(" {species}")
    return form.format(breed=scene.breed, lower=lower, species=species)


def _noun_phrase(scene: Scene, parts: frozenset[str], draw: _Draw, tables: _Wording) -> str:
    subject = _subject(scene, parts, draw)
    if draw.chance(0.22):
        adjectives: Sequence[str]
        if not tables.is_train:
            adjectives = words.UNSEEN_ADJECTIVES
        else:
            is_still = scene.pose not in ("running", "jumping")
            adjectives = words.STILL_ADJECTIVES if is_still else words.ADJECTIVES
        subject = f"{draw.pick(adjectives)} {subject}"
    return with_article(subject)


def _tags(scene: Scene, parts: frozenset[str], draw: _Draw, tables: _Wording) -> str:
    """Short tags such as "pug, sitting, beach, photo"; unseen tags have another order and joint."""
    tags = [_subject(scene, parts, draw)]
    if "pose" in parts:
        tags.append(draw.pick(words.PARTICIPLES[scene.pose], 0.5))
    if "background" in parts:
        tags.append(draw.pick(words.PLACE_TAGS[scene.background], 0.4))
    if "side" in parts:
        tags.append(f"facing {scene.side}")
    if "light" in parts:
        tags.append(words.LIGHT_TAGS[scene.light])
    if "style" in parts:
        tags.append(scene.style)
    return tables.tag_joint.join(tags if tables.is_train else reversed(tags))


def _place(scene: Scene, frame: str, draw: _Draw) -> str:
    path_rate = 0.95 if scene.background == "sofa" else 0.6  # nothing runs far on a sofa
    if scene.pose == "running" and _AFTER_VERB(frame) and draw.chance(path_rate):
        return draw.pick(words.PATHS[scene.background])
    return draw.pick(words.PLACES[scene.background], 0.15)


def _setting(scene: Scene, draw: _Draw, tables: _Wording, *, with_light: bool) -> str:
    preposition, place = draw.pick(words.SETTINGS[scene.background])
    if with_light:
        place = f"{draw.pick(words.LIGHT_ADJECTIVES[scene.light])} {place}"
    elif draw.chance(0.3):
        place = f"{draw.pick(tables.setting_adjectives)} {place}"
    return f"{preposition} {with_article(place)}"


def _content(phrase: str) -> set[str]:
    return {word.strip(",") for word in phrase.split() if len(word) > 3}


def _fresh(options: Sequence[str], said: str, draw: _Draw) -> str:
    """Draws a phrase that, where possible, repeats no content word of what was said."""
    said_words = _content(said)
    phrase = draw.pick(options)
    for _ in range(4):
        if not _content(phrase) & said_words:
            break
        phrase = draw.pick(options)
    return phrase


def _sentence(scene: Scene, parts: frozenset[str], draw: _Draw, tables: _Wording, *, is_long: bool) -> str:
    """Fills a sentence frame and appends what the frame has no slot for."""
    frame = draw.pick(tables.frames["pose" in parts, "background" in parts])
    styled = "style" in parts and "{noun}" in frame and draw.chance(0.8)
    noun = draw.pick(words.STYLE_NOUNS[scene.style], 0.35) if styled else draw.pick(words.VIEW_NOUNS)
    light_said = (
        "{setting}" in frame and "light" in parts and scene.background != "night" and draw.chance(0.6)
    )
    place = _place(scene, frame, draw)
    text = frame.format(
        noun=noun,
        np=_noun_phrase(scene, parts, draw, tables),
        ing=draw.pick(words.PARTICIPLES[scene.pose], 0.2),
        fin=draw.pick(words.FINITES[scene.pose], 0.2),
        place=place,
        behind=_fresh(words.BEHIND[scene.background], place if "{place}" in frame else "", draw),
        setting=_setting(scene, draw, tables, with_light=light_said),
    )
    if is_long:
        text = _add_extras(text, scene, parts, draw, tables, may_add_place="{behind}" not in frame)
    if "side" in parts:
        text += ", " + draw.pick(words.SIDE_PHRASES, 0.3).format(side=scene.side)
    if "light" in parts and not light_said:
        text += _light_clause(scene, parts, draw)
    if "style" in parts and not styled:
        text += _style_suffix(scene, draw, tables)
    return text


def _light_clause(scene: Scene, parts: frozenset[str], draw: _Draw) -> str:
    by_day = "background" in parts and scene.background not in words.NOT_DAYLIGHT
    table = words.DAYLIGHT_PHRASES if by_day and draw.chance(0.4) else words.LIGHT_PHRASES
    phrase = draw.pick(table[scene.light])
    joint = ", " if phrase.endswith(" lit") or draw.chance(0.5) else " "
    return joint + phrase


def _style_suffix(scene: Scene, draw: _Draw, tables: _Wording) -> str:
    if tables.is_train:
        return draw.pick(words.STYLE_SUFFIXES[scene.style], 0.2)
    return draw.pick(words.UNSEEN_STYLE_SUFFIXES).format(noun=draw.pick(words.STYLE_NOUNS[scene.style], 0.3))


def _add_extras(
    text: str, scene: Scene, parts: frozenset[str], draw: _Draw, tables: _Wording, *, may_add_place: bool
) -> str:
    """Appends details of the mentioned background and noise clauses, as far as the length allows."""
    if may_add_place and "background" in parts and draw.chance(0.55) and text.count(" ") < _WORDS_FOR_EXTRAS:
        behind = _fresh(words.BEHIND[scene.background], text, draw)
        fore = _fresh(words.FOREGROUND[scene.background], f"{text} {behind}", draw)
        text += draw.pick(tables.behind_clauses).format(behind=behind, fore=fore)
    if draw.chance(0.55) and text.count(" ") < _WORDS_FOR_EXTRAS:
        u = draw.uniform()
        noise = tables.noise
        if tables.is_train and u < 0.2 and "side" not in parts:
            noise = words.FACING_NOISE
        elif tables.is_train and u > 0.7 and "style" in parts and scene.style == "photo":
            noise = words.PHOTO_NOISE
        text += ", " + draw.pick(noise)
    return text


def _finish(text: str, draw: _Draw, tables: _Wording, *, sentence: bool) -> str:
    """Adds the quality words of prompts, and the capital and full stop of sentences."""
    u = draw.uniform()
    if tables.is_train and u < 0.12:
        quality = "best quality, high quality" if u < 0.09 else "best quality"
        return f"{quality}, {text}" if u < 0.1 else f"{text}, {quality}"
    if draw.chance(0.6 if sentence else 0.15):
        text = text[0].upper() + text[1:]
        if sentence and draw.chance(0.5):
            text += "."
    return text
