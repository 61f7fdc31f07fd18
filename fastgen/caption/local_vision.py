"""A vision-language model from a local folder, run by transformers; the same question gets the same answer always."""

from pathlib import Path
from typing import Any

from fastgen.bank.chat import Answer, Request
from fastgen.bank.local_model import LocalModel
from fastgen.caption.vision import Pictures
from fastgen.errors import ModelError

MOST_TOKENS = 64
"""Of an answer; twenty words have about thirty."""


class LocalVision(LocalModel):
    """Qwen2.5-VL, or any model that AutoModelForImageTextToText and AutoProcessor load and whose processor has a chat
    template; see `fastgen.bank.chat.Chat`.
    """

    READER, MODEL = "AutoProcessor", "AutoModelForImageTextToText"

    def __init__(self, folder: str | Path, pictures: Pictures) -> None:
        """Look at the folder.

        Args:
            folder: a transformers model folder with weights in safetensors and its processor.
            pictures: of the questions.

        Raises:
            ModelError: it is none.
        """
        super().__init__(folder)
        self._pictures = pictures

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
        return self._answer(ids, prompt_tokens=length)

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
