"""How well CLIP recognises an image as its class: the number that AGS turns into a range of lambda.

The published number is not a cosine: it is the probability of the true class among *all* classes of the bank,

    s = softmax_c(exp(logit_scale) cos(f_img(x), f_txt("a photo of a {c}")))[y]

With the plain cosine, which the paper's text names, the threshold 0.3 splits noise; it is here as an option, and so
is CLIPScore, 2.5 max(cos, 0). The image is the reference as it is on disk, cut to its centre square by CLIP's own
preprocessing; squashed to a square, as the generator sees it, an elongated one may change its bin.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastgen.clip import ScoringClip
from fastgen.errors import FastgenError
from fastgen.header_parts import SCORE_FITS, SCORES
from fastgen.plan.references import Reference

if TYPE_CHECKING:
    from PIL import Image

CLIPSCORE_WEIGHT = 2.5
SQUASHED_SIDE = 512
"""Side of the square that DALDA's code squashes references to, in pixels."""


def class_texts(classes: Sequence[str], template: str) -> list[str]:
    """The text of every class: `{class}` in the template gives way to the name, underscores become spaces.

    Raises:
        FastgenError: if the template does not hold `{class}`.
    """
    if "{class}" not in template:
        raise FastgenError(f"score_template: got {template!r}; it must hold {{class}}, as in 'a photo of a {{class}}'")
    return [template.replace("{class}", name.replace("_", " ")) for name in classes]


def class_scores(
    images: NDArray[np.float32],
    texts: NDArray[np.float32],
    labels: Sequence[int],
    *,
    scale: float,
    kind: str = "softmax",
) -> NDArray[np.float64]:
    """Scores of embedded images.

    Args:
        images: (N, D), rows of length 1.
        texts: (C, D), rows of length 1, one for every class of the bank, never for a part of them.
        labels: the true class of each image, N numbers from 0 to C - 1.
        scale: factor of the cosines, exp(logit_scale).
        kind: "softmax" (0 to 1), "cosine" (-1 to 1) or "clipscore" (0 to 2.5).

    Returns:
        float64 (N,).

    Raises:
        FastgenError: if `kind` is not allowed.
    """
    _one_of("score kind", kind, SCORES)
    all_texts = texts.astype(np.float64)
    # image by image: one product of two matrices rounds differently with the number of images
    products = [all_texts @ image for image in images.astype(np.float64)]
    cosines = np.asarray(products, np.float64).reshape(len(images), len(texts))
    rows, columns = np.arange(len(cosines)), np.asarray(labels, np.int64)
    if kind != "softmax":
        own = np.clip(cosines[rows, columns], -1.0, 1.0)
        return own if kind == "cosine" else CLIPSCORE_WEIGHT * np.maximum(own, 0.0)
    logits = scale * (cosines - cosines.max(axis=1, keepdims=True))
    powers = np.exp(logits)
    return powers[rows, columns] / powers.sum(axis=1)


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise FastgenError(f"{name}: got {value!r}; allowed: {', '.join(allowed)}")


def _squashed(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    return image.resize((SQUASHED_SIDE, SQUASHED_SIDE), Image.Resampling.BILINEAR)


class ClipScorer:
    """Scores references with one CLIP and one list of classes; each reference once.

    Calling it with a `Reference` gives its score, which is what `plan_rows` asks for.
    """

    def __init__(
        self,
        clip: ScoringClip,
        classes: Sequence[str],
        *,
        template: str = "a photo of a {class}",
        kind: str = "softmax",
        fit: str = "center_crop",
        decimals: int | None = None,
    ) -> None:
        """Embeds the class texts.

        Args:
            clip: the model.
            classes: all classes of the bank, in the header's order.
            template: the header's `score_template`.
            kind: "softmax", "cosine" or "clipscore".
            fit: "center_crop" of the reference as it is on disk, or "squash" it to a square before.
            decimals: rounds the scores; the official code rounds to 5.

        Raises:
            FastgenError: if the template, the kind or the fit is not allowed.
        """
        _one_of("score kind", kind, SCORES)
        _one_of("score fit", fit, SCORE_FITS)
        self.kind = kind
        self.fit = fit
        self.decimals = decimals
        self._clip = clip
        self._texts = clip.embed_texts(class_texts(classes, template))
        self._known: dict[tuple[str, int], float] = {}

    def scores(self, images: "Sequence[Image.Image]", labels: Sequence[int]) -> NDArray[np.float64]:
        """Scores N images, as they are on disk, with their labels; float64 (N,)."""
        if self.fit == "squash":
            images = [_squashed(image) for image in images]
        # one image at a time: in a larger batch the last bits of a score depend on the images beside it, and
        # lambda with them; then a rank, a limit or a resumed run would draw other lambdas
        vectors = self._clip.embed_images(images, batch=1)
        found = class_scores(vectors, self._texts, labels, scale=self._clip.scale, kind=self.kind)
        return found if self.decimals is None else np.round(found, self.decimals)

    def __call__(self, reference: Reference) -> float:
        """The score of a reference as its own class; computed at the first call, remembered afterwards.

        Raises:
            ReferenceImageError: if the image cannot be read.
        """
        key = (reference.origin, reference.label)
        if key not in self._known:
            self._known[key] = float(self.scores([reference.load()], [reference.label])[0])
        return self._known[key]
