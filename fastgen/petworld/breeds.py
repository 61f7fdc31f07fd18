"""The breeds of PetWorld: 37 real ones, 12 invented ones and 64 for pretraining.

A breed is a combination of drawable attributes. The real ones follow the breed standard as far as a drawing
of 64 pixels can show it; some are close neighbours on purpose, as in Oxford-IIIT Pet.
"""

import difflib
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgen.petworld.attributes import NOVEL_PETS, OXFORD_PETS

Colour = tuple[int, int, int]

PATTERNS = (
    "solid", "tabby", "spots", "rosettes", "patches", "saddle", "points", "belly", "brindle", "ticked",
    "shaded", "band",
)  # fmt: skip
FACES = ("plain", "mask", "points", "blaze", "tan", "eyepatch", "vee", "cheeks", "spectacles", "hood")
EARS = ("pointed", "tufted", "folded", "floppy", "long", "button", "bat")
MUZZLES = ("flat", "short", "medium", "long")
TAILS = ("thin", "plume", "curl", "stub", "whip", "up")
BUILDS = ("slim", "medium", "stocky", "large", "tiny", "long-low")
FURS = ("short", "long", "curly", "none")


@dataclass(frozen=True, slots=True)
class Breed:
    """What an animal of one breed looks like; colours are RGB, 0 to 255.

    Attributes:
        name: unique name.
        species: "cat" or "dog".
        main, second, third: coat colours: ground, pattern, and accent (a belly, a mask, a rosette's centre).
        pattern: one of `PATTERNS`, on the body.
        face: one of `FACES`, on the head.
        ears, muzzle, tail, build, fur: one of `EARS`, `MUZZLES`, `TAILS`, `BUILDS`, `FURS`.
        eyes: colour of the iris.
        ear_size: relative to the usual ear of that kind.
        ear_colour, leg_colour, foot_colour, tail_colour, chest, nose: overrides of the ground colour.
        tail_tip: colour of the tail's end.
        ruff: colour of a mane around the neck.
        beard: colour of a beard.
        topknot: colour of a tuft between the ears.
        wrinkles: whether the forehead has folds.
        scale: size relative to the build's own.
    """

    name: str
    species: str
    main: Colour
    second: Colour
    third: Colour
    pattern: str = "solid"
    face: str = "plain"
    ears: str = "pointed"
    muzzle: str = "medium"
    tail: str = "thin"
    build: str = "medium"
    fur: str = "short"
    eyes: Colour = (60, 36, 20)
    ear_size: float = 1.0
    ear_colour: Colour | None = None
    leg_colour: Colour | None = None
    foot_colour: Colour | None = None
    tail_colour: Colour | None = None
    tail_tip: Colour | None = None
    chest: Colour | None = None
    nose: Colour = (24, 20, 22)
    ruff: Colour | None = None
    beard: Colour | None = None
    topknot: Colour | None = None
    wrinkles: bool = False
    scale: float = 1.0


WHITE, CREAM, BLACK, SEAL = (246, 243, 238), (240, 222, 190), (30, 28, 32), (70, 46, 36)
TAN, RED, LIVER, GOLD = (190, 120, 62), (186, 92, 40), (88, 50, 36), (222, 160, 84)
PINK, BLUE_EYE, GREEN_EYE, COPPER = (226, 140, 136), (72, 150, 236), (110, 200, 90), (240, 150, 30)


def _cat(name: str, main: Colour, second: Colour, third: Colour = WHITE, **more) -> Breed:
    defaults = {"muzzle": "short", "eyes": GREEN_EYE, "nose": PINK}
    return Breed(name, "cat", main, second, third, **{**defaults, **more})


def _dog(name: str, main: Colour, second: Colour, third: Colour = WHITE, **more) -> Breed:
    return Breed(name, "dog", main, second, third, **{"ears": "floppy", **more})


def _oxford_cats() -> tuple[Breed, ...]:
    cream, ivory = (238, 222, 196), (244, 236, 222)
    return (
        _cat("Abyssinian", (190, 112, 56), (122, 66, 32), (238, 206, 166), pattern="ticked", face="cheeks",
             build="slim", ear_size=1.3, eyes=(214, 190, 60), tail_tip=(90, 50, 30)),
        _cat("Bengal", (222, 154, 72), (84, 44, 22), (178, 100, 44), pattern="rosettes", build="medium",
             ear_size=0.85, tail_tip=BLACK),
        _cat("Birman", cream, SEAL, pattern="points", face="points", fur="long", tail="plume", eyes=BLUE_EYE,
             foot_colour=WHITE, ruff=ivory, ear_size=0.9),
        _cat("Bombay", (26, 24, 28), (14, 12, 16), BLACK, eyes=COPPER, nose=(60, 50, 54)),
        _cat("British Shorthair", (124, 134, 152), (96, 104, 120), build="stocky", eyes=COPPER, ear_size=0.7,
             nose=(84, 90, 104)),
        _cat("Egyptian Mau", (200, 202, 206), (46, 46, 52), (236, 236, 238), pattern="spots", build="slim",
             eyes=(130, 214, 80), tail_tip=BLACK, ear_size=1.05),
        _cat("Maine Coon", (158, 116, 74), (66, 44, 30), (232, 206, 168), pattern="tabby", ears="tufted",
             fur="long", tail="plume", build="large", ruff=(226, 200, 160), muzzle="medium",
             eyes=(200, 190, 70), ear_size=1.15),
        _cat("Persian", (246, 224, 186), (226, 194, 150), pattern="solid", muzzle="flat", fur="long",
             tail="plume", build="stocky", eyes=COPPER, ear_size=0.6, ruff=(252, 240, 214)),
        _cat("Ragdoll", ivory, (132, 122, 128), pattern="points", face="vee", fur="long", tail="plume",
             build="large", eyes=BLUE_EYE, leg_colour=WHITE, chest=WHITE, ear_size=0.9),
        _cat("Russian Blue", (132, 146, 166), (104, 116, 134), build="slim", eyes=(70, 210, 90), ear_size=1.2,
             nose=(90, 96, 112)),
        _cat("Siamese", (232, 214, 186), (62, 42, 34), pattern="points", face="points", build="slim",
             eyes=BLUE_EYE, ear_size=1.35, tail="whip", nose=(40, 28, 26)),
        _cat("Sphynx", (232, 188, 172), (204, 148, 134), ears="bat", fur="none", tail="whip", build="slim",
             wrinkles=True, eyes=(170, 200, 90)),
    )  # fmt: skip


def _oxford_dogs_a() -> tuple[Breed, ...]:
    return (
        _dog("American Bulldog", WHITE, (160, 104, 62), pattern="patches", face="eyepatch", ears="button",
             muzzle="short", tail="whip", build="stocky", scale=1.08),
        _dog("American Pit Bull Terrier", (174, 100, 58), (140, 76, 44), ears="button", ear_size=0.7,
             muzzle="medium", tail="whip", chest=WHITE, foot_colour=WHITE, nose=(150, 80, 66)),
        _dog("Basset Hound", TAN, (60, 44, 38), pattern="saddle", face="blaze", ears="long", muzzle="long",
             tail="up", build="long-low", leg_colour=WHITE, chest=WHITE, tail_tip=WHITE,
             ear_colour=(150, 86, 42)),
        _dog("Beagle", (200, 126, 60), BLACK, pattern="saddle", face="blaze", tail="up", leg_colour=WHITE,
             chest=WHITE, tail_tip=WHITE, ear_colour=(166, 92, 40), scale=0.9),
        _dog("Boxer", (206, 136, 76), BLACK, face="mask", muzzle="short", tail="stub", chest=WHITE,
             foot_colour=WHITE, ears="button", ear_colour=(130, 76, 44), scale=1.08),
        _dog("Chihuahua", (230, 186, 130), (200, 150, 96), (246, 226, 194), ears="bat", muzzle="short",
             tail="whip", build="tiny", pattern="belly", scale=0.9),
        _dog("English Cocker Spaniel", (184, 98, 40), (150, 76, 30), ears="long", fur="curly", tail="stub",
             ear_colour=(158, 78, 30), topknot=(200, 116, 56)),
        _dog("English Setter", (244, 240, 234), (70, 66, 72), pattern="ticked", ears="long", muzzle="long",
             tail="plume", fur="long", build="large", ear_colour=(70, 64, 68), face="hood", ear_size=0.8,
             scale=0.95),
        _dog("German Shorthaired", (222, 214, 204), LIVER, LIVER, pattern="ticked", face="hood",
             muzzle="long", tail="stub", build="slim", ear_colour=(70, 38, 28), scale=1.1, chest=LIVER),
        _dog("Great Pyrenees", (250, 246, 238), (222, 190, 150), tail="plume", fur="long", build="large",
             ear_colour=(216, 184, 144), muzzle="medium"),
        _dog("Havanese", (226, 196, 152), (150, 98, 60), fur="long", tail="curl", build="tiny",
             ear_colour=(140, 92, 58), topknot=(240, 220, 188), beard=(244, 228, 200), muzzle="short"),
        _dog("Japanese Chin", WHITE, BLACK, pattern="patches", face="eyepatch", muzzle="flat", fur="long",
             tail="curl", build="tiny", ear_colour=BLACK),
        _dog("Keeshond", (150, 148, 150), (54, 52, 56), (214, 208, 200), pattern="shaded", face="spectacles",
             ears="pointed", ear_size=0.9, fur="long", tail="curl", ruff=(206, 202, 198),
             ear_colour=(44, 42, 46), leg_colour=(220, 212, 200)),
    )  # fmt: skip


def _oxford_dogs_b() -> tuple[Breed, ...]:
    return (
        _dog("Leonberger", (200, 138, 70), (40, 32, 30), face="mask", fur="long", tail="plume", build="large",
             ruff=(150, 92, 44), ear_colour=(66, 44, 32), tail_tip=(60, 40, 30)),
        _dog("Miniature Pinscher", (38, 32, 34), (196, 108, 48), (196, 108, 48), face="tan", ears="pointed",
             tail="stub", build="slim", foot_colour=(196, 108, 48), chest=(196, 108, 48), scale=0.78,
             ear_size=1.15),
        _dog("Newfoundland", (44, 38, 40), (26, 22, 24), fur="long", tail="plume", build="large",
             scale=1.05, ear_colour=(26, 22, 24)),
        _dog("Pomeranian", (236, 146, 60), (208, 110, 38), ears="pointed", ear_size=0.75, fur="long",
             tail="curl", build="tiny", ruff=(246, 178, 100), muzzle="short", scale=0.95),
        _dog("Pug", (226, 190, 144), BLACK, face="mask", ears="button", ear_colour=BLACK, muzzle="flat",
             tail="curl", build="tiny", wrinkles=True, ear_size=0.8),
        _dog("Saint Bernard", WHITE, (170, 86, 40), (60, 36, 28), pattern="patches", face="blaze",
             ear_colour=(110, 56, 30), fur="long", tail="plume", build="large", scale=1.08, chest=WHITE,
             muzzle="medium"),
        _dog("Samoyed", (250, 248, 246), (232, 228, 224), ears="pointed", ear_size=1.0, fur="long",
             tail="curl", ruff=(255, 254, 252), scale=1.08),
        _dog("Scottish Terrier", (42, 42, 48), (22, 22, 26), ears="pointed", fur="long", tail="up",
             build="long-low", beard=(30, 30, 34), muzzle="long", scale=0.85),
        _dog("Shiba Inu", (218, 128, 58), (190, 100, 40), (250, 232, 206), pattern="belly", face="cheeks",
             ears="pointed", ear_size=0.85, tail="curl", chest=(250, 232, 206), tail_tip=CREAM, scale=0.95),
        _dog("Staffordshire Bull Terrier", (128, 78, 50), (62, 38, 28), pattern="brindle", ears="button",
             muzzle="short", tail="whip", build="stocky", chest=WHITE),
        _dog("Wheaten Terrier", (226, 190, 132), (204, 160, 100), ears="button", fur="curly", tail="up",
             beard=(166, 118, 70), topknot=(236, 204, 150), ear_colour=(190, 146, 92)),
        _dog("Yorkshire Terrier", (206, 132, 62), (74, 84, 104), pattern="saddle", ears="pointed",
             ear_size=1.15, fur="long", tail="stub", build="tiny", topknot=(224, 158, 84),
             beard=(226, 168, 100), muzzle="short", tail_colour=(74, 84, 104), scale=0.9),
    )  # fmt: skip


def _novel() -> tuple[Breed, ...]:
    teal, lilac, moss, ink = (50, 134, 132), (182, 152, 212), (126, 152, 118), (34, 42, 92)
    return (
        _cat("Alderwisp", moss, (70, 96, 72), (206, 218, 190), pattern="shaded", face="cheeks", ears="tufted",
             ear_size=1.2, fur="long", tail="stub", build="slim", eyes=COPPER),
        _dog("Brindlemoor Hound", (128, 96, 130), (228, 180, 80), pattern="brindle", ears="long",
             muzzle="long", tail="curl", build="slim", foot_colour=(228, 180, 80)),
        _cat("Cobaltine", (60, 96, 186), (226, 232, 244), pattern="points", face="points", ears="folded",
             build="stocky", muzzle="flat", eyes=(250, 210, 70)),
        _dog("Dunmarrow Terrier", (176, 166, 92), (104, 36, 50), pattern="saddle", ears="bat", fur="curly",
             beard=(104, 36, 50), tail="up", build="long-low"),
        _dog("Embertail", (62, 62, 70), (246, 112, 36), (246, 112, 36), face="tan", ears="button",
             fur="long", tail="plume", tail_colour=(246, 112, 36), foot_colour=(246, 112, 36), build="slim"),
        _dog("Fennimore Spaniel", (246, 242, 250), lilac, pattern="patches", face="blaze", ears="long",
             fur="curly", tail="plume", ear_colour=(150, 116, 190), topknot=lilac),
        _cat("Glasswick", (162, 218, 212), (70, 142, 148), pattern="spots", ears="bat", fur="none",
             tail="thin", build="tiny", wrinkles=True, eyes=(230, 90, 150)),
        _dog("Hollowmere Retriever", teal, (34, 96, 98), (244, 226, 190), fur="long", tail="plume",
             build="large", chest=(244, 226, 190), muzzle="long", face="cheeks"),
        _cat("Inkpaw", (236, 230, 222), ink, ink, ears="folded", tail="plume", tail_colour=ink,
             leg_colour=ink, face="eyepatch", eyes=(240, 200, 60)),
        _dog("Juniper Loper", (150, 168, 146), (58, 92, 84), (220, 230, 190), pattern="tabby",
             ears="pointed", ear_size=1.4, muzzle="long", tail="whip", build="slim", scale=1.1),
        _cat("Kestrel Cat", (196, 104, 58), (62, 56, 64), (96, 120, 156), pattern="spots", face="hood",
             tail_colour=(96, 120, 156), ear_colour=(96, 120, 156), tail_tip=BLACK, build="medium",
             eyes=(250, 220, 60)),
        _dog("Lumenfell", (250, 226, 150), (236, 150, 172), (236, 150, 172), pattern="band", fur="curly",
             ears="pointed", tail="curl", ruff=(168, 222, 190), build="medium", face="spectacles"),
    )  # fmt: skip


def _random_colour(rng: np.random.Generator) -> Colour:
    """A random colour: mostly natural coats, sometimes any hue, so that a backbone learns to see colour."""
    natural = (
        WHITE,
        CREAM,
        BLACK,
        SEAL,
        TAN,
        RED,
        LIVER,
        GOLD,
        (128, 136, 150),
        (190, 190, 194),
        (110, 80, 60),
    )
    if rng.random() < 0.55:
        base = np.array(natural[rng.integers(len(natural))]) + rng.integers(-14, 15, 3)
    else:
        base = rng.integers(40, 230, 3)
    r, g, b = (int(c) for c in np.clip(base, 16, 252))
    return r, g, b


def _pretraining(index: int) -> Breed:
    """Breed `index` of the pretraining set: attributes drawn independently from a fixed stream."""
    rng = np.random.default_rng([20240817, index])

    def pick(values: tuple) -> str:
        return values[rng.integers(len(values))]

    main, second, third = (_random_colour(rng) for _ in range(3))
    while sum(abs(a - b) for a, b in zip(main, second, strict=True)) < 120:
        second = _random_colour(rng)  # a pattern nobody can see would make the label unlearnable
    extras: dict[str, Any] = {key: _random_colour(rng) if rng.random() < share else None for key, share in (
        ("ear_colour", 0.4), ("foot_colour", 0.3), ("tail_tip", 0.25), ("chest", 0.3), ("ruff", 0.2),
        ("beard", 0.12), ("topknot", 0.15), ("leg_colour", 0.2))}  # fmt: skip
    return Breed(
        f"Pretraining {index:02d}", pick(("cat", "dog")), main, second, third, pattern=pick(PATTERNS),
        face=pick(FACES), ears=pick(EARS), muzzle=pick(MUZZLES), tail=pick(TAILS), build=pick(BUILDS),
        fur=pick(FURS), eyes=_random_colour(rng), ear_size=float(rng.uniform(0.7, 1.3)),
        scale=float(rng.uniform(0.9, 1.1)), **extras,
    )  # fmt: skip


PRETRAINING_PETS: tuple[str, ...] = tuple(f"Pretraining {i:02d}" for i in range(64))
"""Names of the breeds that only the pretraining of a classifier backbone uses."""


def _all_breeds() -> dict[str, Breed]:
    made = (*_oxford_cats(), *_oxford_dogs_a(), *_oxford_dogs_b(), *_novel())
    table = {b.name: b for b in (*made, *(_pretraining(i) for i in range(64)))}
    return {name: table[name] for name in (*OXFORD_PETS, *NOVEL_PETS, *PRETRAINING_PETS)}


BREEDS: dict[str, Breed] = _all_breeds()
"""Every breed by name, in the order Oxford, novel, pretraining."""


def breed(name: str) -> Breed:
    """Looks up a breed.

    Args:
        name: exact name, as in `BREEDS`.

    Returns:
        The breed.

    Raises:
        ValueError: if there is no such breed; the message lists close matches.
    """
    try:
        return BREEDS[name]
    except KeyError:
        close = difflib.get_close_matches(name, BREEDS, n=3, cutoff=0.4)
        hint = f"; close matches: {', '.join(close)}" if close else ""
        raise ValueError(f"no breed named {name!r}{hint}") from None
