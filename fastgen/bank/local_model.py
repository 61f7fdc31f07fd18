"""A transformers model from a local folder that answers: loaded once, and the same question gets the same answer."""

import datetime
import threading
from pathlib import Path
from typing import Any, ClassVar

from fastgen.bank.chat import Answer
from fastgen.errors import ChatError, ModelError
from fastgen.files import sha256_file, sha256_json


class LocalModel:
    """What `LocalChat` and `LocalVision` share; see `fastgen.bank.chat.Chat`.

    The weights are loaded with the first question, in their own precision, on the GPU if there is one, so that a run
    from the cache needs neither memory nor time.

    Attributes:
        identity: what tells the folder from any other, see `local_identity`.
        READER: transformers' class that turns texts (and pictures) into inputs.
        MODEL: transformers' class of the model.
    """

    READER: ClassVar[str]
    MODEL: ClassVar[str]

    def __init__(self, folder: str | Path) -> None:
        """Look at the folder.

        Args:
            folder: a transformers model folder with weights in safetensors.

        Raises:
            ModelError: it is none.
        """
        self._folder = Path(folder)
        self.identity: dict[str, Any] = local_identity(self._folder)
        self._lock = threading.Lock()
        self._loaded: tuple[Any, Any] | None = None

    def close(self) -> None:
        """Do nothing: there is no waiting between tries."""

    def _load(self) -> tuple[Any, Any]:
        """Return reader and model, loaded once."""
        if self._loaded is None:
            import torch
            import transformers

            options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            try:
                reader = getattr(transformers, self.READER).from_pretrained(self._folder, **options)
                model = getattr(transformers, self.MODEL).from_pretrained(
                    self._folder, use_safetensors=True, torch_dtype="auto", **options
                )
            except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError) as error:
                raise ModelError(f"{self._folder}: transformers cannot load it ({error})") from error
            model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
            self._loaded = reader, model
        return self._loaded

    def _answer(self, ids: Any, *, prompt_tokens: int) -> Answer:
        """What the model has generated, token ids int64 (N,), as an answer."""
        reader, model = self._load()
        ends = model.generation_config.eos_token_id
        stopped = len(ids) > 0 and int(ids[-1]) in (ends if isinstance(ends, list) else [ends])
        return Answer(
            text=reader.decode(ids, skip_special_tokens=True),
            finish="stop" if stopped else "length",
            prompt_tokens=prompt_tokens,
            completion_tokens=len(ids),
            date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        )


def local_folder(model: str, *, base_url: str | None) -> Path | None:
    """The folder that `--model` names, or None where it is the name of a model at an endpoint.

    Raises:
        ChatError: it is empty, or a path at which there is no folder.
    """
    if base_url is None and Path(model).expanduser().is_dir():
        return Path(model).expanduser()
    if base_url is None and model.startswith((".", "/", "~")):
        raise ChatError(f"--model {model}: no such folder; give a model folder, or a model's name at an endpoint")
    if not model.strip():
        raise ChatError("got an empty --model; give a model folder, or a model's name at an endpoint")
    return None


def local_identity(folder: Path) -> dict[str, Any]:
    """What tells a transformers model folder from any other: its name and the hash of its files.

    Raises:
        ModelError: it is none.
    """
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise ModelError(f"{folder}: holds no config.json with weights in *.safetensors; give a transformers model")
    files = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".json", ".jinja", ".model"))
    content = sha256_json({path.name: sha256_file(path) for path in files})
    return {"model": folder.resolve().name, "sha256": content, "endpoint": "local"}
