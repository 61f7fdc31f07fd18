"""What two images are compared with: a vector for each, and what two vectors say about their images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgen.clip import ScoringClip
from fastgen.errors import ModelError

if TYPE_CHECKING:
    from PIL import Image

MINI = Path(__file__).parent.parent / "models" / "mini"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """How alike two images are, as a function of one vector per image.

    Both kinds are made of dot products, which is why the mean over all pairs of a class follows from sums
    (`pairs.VectorSums`) and no pair is ever formed.

    Attributes:
        name: what its metrics begin with: `clip_i`, `lpips_alex`, `lpips_vgg` or `resnet_distance`.
        kind: "similarity", f.g of unit vectors; or "distance", |f - g|^2.
        sha256: changes with anything that changes a vector; key of the cache.
        embed: RGB images of any size -> float32 (B, D).
        batch: images per call of `embed`.
        about: what report.json says about it.
    """

    name: str
    kind: str
    sha256: str
    embed: Callable[["Sequence[Image.Image]"], np.ndarray]
    batch: int = 64
    about: dict[str, Any] = field(default_factory=dict)


def clip_measure(clip: str | Path | None = None, *, device: str = "cpu") -> Measure:
    """CLIP-I: cosine of the image embeddings, each image with the model's own preprocessing (card, section 2.9).

    Args:
        clip: as `ScoringClip.load` takes it; None is the embedded model's scoring CLIP.
        device: torch device.

    Raises:
        ModelError: if there is no such model.
    """
    model = load_clip(clip, device=device)
    about = {"model": "mini" if clip is None else str(clip), "sha256": model.sha256}
    return Measure(name="clip_i", kind="similarity", sha256=model.sha256, embed=model.embed_images, about=about)


def load_clip(clip: str | Path | None = None, *, device: str = "cpu") -> ScoringClip:
    """The CLIP that images are judged by.

    Args:
        clip: as `ScoringClip.load` takes it; None is the embedded model's scoring CLIP.
        device: torch device.

    Raises:
        ModelError: if there is no such model.
    """
    source = clip or MINI / "clip"
    if clip is None and not Path(source).is_dir():
        raise ModelError(
            f"CLIP: no weights at {source}, which are part of a complete install; give another CLIP with "
            "--clip: a folder of open_clip, or NAME=WEIGHTS such as ViT-B-16-quickgelu=openai"
        )
    return ScoringClip.load(source, device=device)
