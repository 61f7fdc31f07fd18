"""One CLIP for scoring: images and texts to unit vectors, with open_clip and its own preprocessing.

This is the model that judges how well a reference is recognised (AGS) and how much images resemble each
other. It is not the model that encodes image prompts: that one is part of an engine.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastgen.errors import ModelError
from fastgen.files import sha256_json
from fastgen.weights_hash import weights_sha256

if TYPE_CHECKING:
    import torch
    from PIL import Image

WHAT_LOADS = (
    "a folder with open_clip_config.json and its weights (*.safetensors), or NAME=WEIGHTS with a model name "
    "of open_clip and a weights file or tag, such as ViT-B-16-quickgelu=openai"
)


def _open_clip() -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise ModelError(f"CLIP scores need open_clip ({error}); install it: pip install open_clip_torch") from error
    return open_clip


def _open_clip_arguments(source: str, open_clip: Any) -> tuple[str, str | None]:
    """Turns `source` into open_clip's (model_name, pretrained), or says what is wrong with it."""
    folder = Path(source)
    if folder.is_dir():
        if not (folder / "open_clip_config.json").is_file():
            raise ModelError(f"scoring CLIP: folder {folder} has no open_clip_config.json; allowed: {WHAT_LOADS}")
        if not any(path for end in ("safetensors", "bin", "pth") for path in folder.glob(f"*.{end}")):
            raise ModelError(f"scoring CLIP: folder {folder} has no weights; allowed: {WHAT_LOADS}")
        return f"local-dir:{folder}", None
    name, _, weights = source.partition("=")
    if name not in open_clip.list_models():
        raise ModelError(f"scoring CLIP: {source!r} is no folder and no model of open_clip; allowed: {WHAT_LOADS}")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not Path(weights).is_file() and weights not in tags:
        what = f"{weights!r} is neither a file nor a tag" if weights else "no weights given"
        raise ModelError(f"scoring CLIP {name}: {what}; write {name}=FILE, or a tag: {', '.join(tags) or 'none'}")
    return name, weights


class ScoringClip:
    """Images and texts to vectors of one space; their dot product is the cosine.

    Attributes:
        logit_scale: the learned scale *before* the exponential, as checkpoints store it.
        scale: exp(logit_scale), the factor of the cosines in the softmax; 100 for OpenAI's models.
        device: where the model lies, such as "cpu" or "cuda".
    """

    def __init__(
        self,
        model: Any,
        preprocess: Callable[["Image.Image"], "torch.Tensor"],
        tokenizer: Callable[[list[str]], "torch.Tensor"],
        *,
        device: str = "cpu",
    ) -> None:
        """Wraps a model of open_clip; `load` is the usual way.

        Args:
            model: has `encode_image`, `encode_text` and `logit_scale`.
            preprocess: RGB image to float32 (3, S, S).
            tokenizer: texts to int64 ids (N, L).
            device: where the model lies.
        """
        self.device = device
        self.logit_scale = float(model.logit_scale)
        self.scale = float(np.exp(self.logit_scale))
        self._model = model
        self._preprocess = preprocess
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, source: str | Path, *, device: str = "cpu") -> "ScoringClip":
        """Loads a model with open_clip, in float32.

        Args:
            source: a folder with `open_clip_config.json` and weights (the tokenizer's files too, if the
                config names a tokenizer of its own), or "NAME=WEIGHTS": a model name of open_clip and a
                weights file or one of open_clip's tags, which it downloads. OpenAI's weights need a name with
                "-quickgelu".
            device: "cpu", "cuda", "cuda:1", ...

        Raises:
            ModelError: if there is no such model, or its files do not fit together.
        """
        open_clip = _open_clip()
        name, pretrained = _open_clip_arguments(str(source), open_clip)
        try:
            model, preprocess = open_clip.create_model_from_pretrained(name, pretrained, device=device)
            tokenizer = open_clip.get_tokenizer(name)
        except Exception as error:  # open_clip raises whatever json, torch and transformers raise
            raise ModelError(f"scoring CLIP {source}: {error}; allowed: {WHAT_LOADS}") from error
        return cls(model.eval().requires_grad_(False), preprocess, tokenizer, device=device)

    @cached_property
    def sha256(self) -> str:
        """Hash of the weights and of the preprocessing: models that share it embed images alike."""
        preprocessing = _open_clip().get_model_preprocess_cfg(self._model)
        return sha256_json([weights_sha256(self._model), preprocessing])

    def embed_images(self, images: "Sequence[Image.Image]", *, batch: int = 64) -> NDArray[np.float32]:
        """Embeds images of any size, with the model's own preprocessing.

        Args:
            images: N RGB images; give the originals, not square copies: the model crops them itself.
            batch: images at a time. The last bits of a vector may depend on it; with 1 they do not depend on
                the other images.

        Returns:
            float32 (N, D), rows of length 1.
        """
        import torch

        def encode(part: "Sequence[Image.Image]") -> "torch.Tensor":
            pixels = torch.stack([self._preprocess(image) for image in part]).to(self.device)
            return self._model.encode_image(pixels, normalize=True)

        return self._embed(images, encode, batch)

    def embed_texts(self, texts: Sequence[str], *, batch: int = 256) -> NDArray[np.float32]:
        """Embeds texts; what is beyond the model's context (77 tokens) is cut off.

        Args:
            texts: N texts.
            batch: texts at a time.

        Returns:
            float32 (N, D), rows of length 1.
        """

        def encode(part: Sequence[str]) -> "torch.Tensor":
            return self._model.encode_text(self._tokenizer(list(part)).to(self.device), normalize=True)

        return self._embed(texts, encode, batch)

    def _embed(self, items: Sequence, encode: "Callable[[Any], torch.Tensor]", batch: int) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            parts = [encode(part).float().cpu().numpy() for part in _batches(items, batch)]
        return np.concatenate(parts) if parts else np.zeros((0, self._width()), np.float32)

    def _width(self) -> int:
        return len(self.embed_texts([""])[0])


def _batches(items: Sequence, batch: int) -> Iterator[Sequence]:
    for start in range(0, len(items), batch):
        yield items[start : start + batch]
