"""The vocabulary of PetWorld: which values every free attribute of a picture can take.

A `Scene` is the complete ground truth of one picture. Nothing about a picture is decided outside it, except
the small random details (positions of clouds, spots, grains) that follow from `Scene.detail_seed`.
"""

from dataclasses import dataclass

POSES = ("sitting", "standing", "lying", "running", "jumping")
BACKGROUNDS = ("meadow", "beach", "forest", "street", "snow", "lake", "sofa", "kitchen", "desert", "night")
STYLES = (
    "photo",
    "art painting",
    "cartoon",
    "sketch",
    "watercolor",
    "pixel art",
    "3d render",
    "cyberpunk",
)
LIGHTS = ("bright", "soft", "golden", "dim")
SIDES = ("left", "right")

OXFORD_PETS = (
    "Abyssinian",
    "American Bulldog",
    "American Pit Bull Terrier",
    "Basset Hound",
    "Beagle",
    "Bengal",
    "Birman",
    "Bombay",
    "Boxer",
    "British Shorthair",
    "Chihuahua",
    "Egyptian Mau",
    "English Cocker Spaniel",
    "English Setter",
    "German Shorthaired",
    "Great Pyrenees",
    "Havanese",
    "Japanese Chin",
    "Keeshond",
    "Leonberger",
    "Maine Coon",
    "Miniature Pinscher",
    "Newfoundland",
    "Persian",
    "Pomeranian",
    "Pug",
    "Ragdoll",
    "Russian Blue",
    "Saint Bernard",
    "Samoyed",
    "Scottish Terrier",
    "Shiba Inu",
    "Siamese",
    "Sphynx",
    "Staffordshire Bull Terrier",
    "Wheaten Terrier",
    "Yorkshire Terrier",
)
"""The 37 classes of Oxford-IIIT Pet, in that data set's alphabetical order (label = index)."""

NOVEL_PETS = (
    "Alderwisp",
    "Brindlemoor Hound",
    "Cobaltine",
    "Dunmarrow Terrier",
    "Embertail",
    "Fennimore Spaniel",
    "Glasswick",
    "Hollowmere Retriever",
    "Inkpaw",
    "Juniper Loper",
    "Kestrel Cat",
    "Lumenfell",
)
"""Invented breeds with new attribute combinations; no pretraining of the mini model ever sees them."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Ground truth of one picture.

    Attributes:
        breed: a name from `OXFORD_PETS`, `NOVEL_PETS` or `breeds.PRETRAINING_PETS`.
        pose: one of `POSES`.
        background: one of `BACKGROUNDS`.
        style: one of `STYLES`; "photo" is the plain rendering.
        side: the direction the animal faces, one of `SIDES`.
        light: one of `LIGHTS`.
        x: horizontal centre of the animal as a fraction of the width, about 0.38 to 0.62.
        y: offset of the ground contact as a fraction of the height, about -0.05 to 0.05.
        size: scale of the animal relative to its breed's own size, about 0.8 to 1.2.
        detail_seed: seeds every remaining detail (colour jitter, clouds, trees, spots), 0 to 2**63 - 1.
        realism: 0 to 1; strength of the effects that "real" pictures have and the generator's training set has
            less of: camera blur, sensor noise, coat texture, occlusion by an object in front of the animal.
    """

    breed: str
    pose: str
    background: str
    style: str
    side: str
    light: str
    x: float
    y: float
    size: float
    detail_seed: int
    realism: float = 0.0
