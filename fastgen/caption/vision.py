"""Questions about pictures, to an OpenAI-compatible endpoint or to a local transformers model."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgen.bank.chat import Chat, Request
from fastgen.bank.endpoint import OPENAI_URL, Endpoint, Patience
from fastgen.bank.local_model import local_folder
from fastgen.plan.pictures import open_picture

if TYPE_CHECKING:
    from PIL import Image

QUALITY = 95


@dataclass(frozen=True, kw_only=True)
class ImageRequest(Request):
    """A question about one picture, which the last message is shown with.

    Attributes:
        image_sha256: of the picture's file; names it, so that the cache holds no pixels and no paths.
        side: the longer side in pixels that it is shrunk to.
    """

    image_sha256: str
    side: int


class Pictures:
    """The pictures that questions are about, by the hash of their file."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        """Keep the paths; a picture is read when it is asked about."""
        self._files = dict(files)

    def load(self, request: Request) -> "Image.Image":
        """Return the request's picture, RGB, shrunk to its longest side.

        Raises:
            ReferenceImageError: the file cannot be read.
        """
        from PIL import Image

        assert isinstance(request, ImageRequest), "only questions about pictures are asked here"
        picture = open_picture(self._files[request.image_sha256])
        if max(picture.size) > request.side:
            picture.thumbnail((request.side, request.side), Image.Resampling.BICUBIC)
        return picture


class VisionEndpoint(Endpoint):
    """A chat endpoint that sees; the picture goes as a data URL beside the last message's text."""

    def __init__(self, model: str, base_url: str, pictures: Pictures, **options: Any) -> None:
        """Prepare; nothing is sent.

        Args:
            model: name of the model there.
            base_url: address of the API.
            pictures: of the questions.
            options: as `Endpoint`.

        Raises:
            ChatError: the address or the key cannot be used.
        """
        super().__init__(model, base_url, **options)
        self._pictures = pictures

    def _messages(self, request: Request) -> list[dict[str, Any]]:
        buffer = io.BytesIO()
        self._pictures.load(request).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
        url = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
        *before, last = request.messages
        content = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": last["content"]},
        ]
        return [*before, {"role": last["role"], "content": content}]


def open_vision(
    model: str, pictures: Pictures, *, base_url: str | None, key_env: str, patience: Patience | None = None
) -> Chat:
    """Return the model to ask: a local folder when `model` is one and no address is given, else an endpoint.

    Raises:
        ChatError: model, address or key cannot be used.
        ModelError: the folder holds no model.
    """
    folder = local_folder(model, base_url=base_url)
    if folder is not None:
        from fastgen.caption.local_vision import LocalVision

        return LocalVision(folder, pictures)
    return VisionEndpoint(model, base_url or OPENAI_URL, pictures, key_env=key_env, patience=patience)
