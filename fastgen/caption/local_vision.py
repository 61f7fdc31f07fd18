"""A vision-language model from a local folder, run by transformers; the same question gets the same answer always."""

import datetime
import threading
from pathlib import Path
from typing import Any

from fastgen.bank.chat import Answer, Request
from fastgen.bank.local_chat import local_identity
from fastgen.caption.vision import Pictures
from fastgen.errors import ModelError

MOST_TOKENS = 64
"""Of an answer; twenty words have about thirty."""


class LocalVision:
    """Qwen2.5-VL, or any model that AutoModelForImageTextToText and AutoProcessor load and whose processor has a chat
    template; see `fastgen.bank.chat.Chat`.

    The weights are loaded with the first question, in their own precision, on the GPU if there is one.
    """

    def __init__(self, folder: str | Path, pictures: Pictures) -> None:
        """Look at the folder.

        Args:
            folder: a transformers model folder with weights in safetensors and its processor.
            pictures: of the questions.

        Raises:
            ModelError: it is none.
        """
        self._folder = Path(folder)
        self._pictures = pictures
        self.identity: dict[str, Any] = local_identity(self._folder)
        self._lock = threading.Lock()
        self._loaded: tuple[Any, Any] | None = None

    def close(self) -> None:
        """Do nothing: there is no waiting between tries."""

    def ask(self, request: Request) -> Answer:
        """Answer a question about a picture; the seed of the sampling is the request's hash.

        Raises:
            ModelError: the model cannot be loaded, has no chat template, or cannot take pictures.
            ReferenceImageError: the picture cannot be read.
        """
        import torch

        picture = self._pictures.load(request)
        with self._lock, torch.inference_mode(), torch.random.fork_rng():
            processor, model = self._load()
            inputs = self._inputs(processor, request, picture).to(model.device, model.dtype)
            length = inputs["input_ids"].shape[1]
            torch.manual_seed(int(request.sha256[:15], 16))
            sampling = {"do_sample": True, "temperature": request.temperature, "top_p": 1.0, "top_k": 0}
            greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
            ids = model.generate(
                **inputs, **(sampling if request.temperature > 0 else greedy), max_new_tokens=MOST_TOKENS
            )[0, length:]
        ends = model.generation_config.eos_token_id
        stopped = len(ids) > 0 and int(ids[-1]) in (ends if isinstance(ends, list) else [ends])
        return Answer(
            text=processor.decode(ids, skip_special_tokens=True),
            finish="stop" if stopped else "length",
            prompt_tokens=length,
            completion_tokens=len(ids),
            date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        )

    def _inputs(self, processor: Any, request: Request, picture: Any) -> Any:
        """The model's inputs: its own chat format, the picture before the question."""
        if not getattr(processor, "chat_template", None):
            raise ModelError(f"{self._folder}: its processor has no chat template; give a model that answers chats")
        *before, last = request.messages
        shown = [{"type": "image", "image": picture}, {"type": "text", "text": last["content"]}]
        chat = [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in before]
        try:
            return processor.apply_chat_template(
                [*chat, {"role": last["role"], "content": shown}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        except (TypeError, ValueError, KeyError) as error:
            raise ModelError(f"{self._folder}: its processor takes no pictures in chats ({error})") from error

    def _load(self) -> tuple[Any, Any]:
        """Return processor and model, loaded once."""
        if self._loaded is None:
            import torch
            from transformers import AutoModelForImageTextToText, AutoProcessor

            options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            try:
                processor = AutoProcessor.from_pretrained(self._folder, **options)
                model = AutoModelForImageTextToText.from_pretrained(
                    self._folder, use_safetensors=True, torch_dtype="auto", **options
                )
            except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError) as error:
                raise ModelError(f"{self._folder}: transformers cannot load it ({error})") from error
            model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
            self._loaded = processor, model
        return self._loaded
