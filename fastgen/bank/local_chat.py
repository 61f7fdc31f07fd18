"""A language model from a local folder, run by transformers; it answers the same request always with the same text."""

import datetime
import threading
from pathlib import Path
from typing import Any

from fastgen.bank.chat import Answer, Messages, Request
from fastgen.errors import ModelError
from fastgen.files import sha256_file, sha256_json

_ROOM = 256
_ROOM_PER_SENTENCE = 96
"""Most tokens of an answer: some for the JSON and a preface, and about twice what a sentence and its key need."""


class LocalChat:
    """A causal language model with a chat template; see `fastgen.bank.chat.Chat`.

    The weights are loaded with the first question, so that a run from the cache needs neither memory nor time.
    """

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

    def ask(self, request: Request) -> Answer:
        """Answer a request; the seed of the sampling is its hash.

        Raises:
            ModelError: the model cannot be loaded, has no chat template, or the request is longer than it reads.
        """
        import torch

        with self._lock, torch.inference_mode(), torch.random.fork_rng():
            tokenizer, model = self._load()
            prompt = _prompt(tokenizer, request.messages, self._folder).to(model.device)
            length = prompt.input_ids.shape[1]
            room = _ROOM + _ROOM_PER_SENTENCE * request.sentences
            context = getattr(model.config, "max_position_embeddings", None) or length + room
            if length >= context:
                raise ModelError(
                    f"{self._folder}: the request has {length} tokens and the model reads {context}; "
                    "lower --batch-classes or shorten --description"
                )
            torch.manual_seed(int(request.sha256[:15], 16))
            sampling = {"do_sample": True, "temperature": request.temperature, "top_p": 1.0, "top_k": 0}
            ids = model.generate(
                input_ids=prompt.input_ids,
                attention_mask=prompt.attention_mask,
                **(sampling if request.temperature > 0 else {"do_sample": False}),
                max_new_tokens=min(room, context - length),
                pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
            )[0, length:]
        ends = model.generation_config.eos_token_id
        stopped = len(ids) > 0 and int(ids[-1]) in (ends if isinstance(ends, list) else [ends])
        return Answer(
            text=tokenizer.decode(ids, skip_special_tokens=True),
            finish="stop" if stopped else "length",
            prompt_tokens=length,
            completion_tokens=len(ids),
            date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        )

    def _load(self) -> tuple[Any, Any]:
        """Return tokenizer and model, loaded once."""
        if self._loaded is None:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer

            options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            try:
                tokenizer = AutoTokenizer.from_pretrained(self._folder, **options)
                model = AutoModelForCausalLM.from_pretrained(
                    self._folder, use_safetensors=True, torch_dtype="auto", **options
                )
            except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError) as error:
                raise ModelError(f"{self._folder}: transformers cannot load it ({error})") from error
            model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
            self._loaded = tokenizer, model
        return self._loaded


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


def _prompt(tokenizer: Any, messages: Messages, folder: Path) -> Any:
    """Put messages into the model's own chat format; one that knows no system role gets a single message."""
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise ModelError(f"{folder}: its tokenizer has no chat template; give a model that was trained to follow chats")
    whole = [{"role": "user", "content": "\n\n".join(message["content"] for message in messages)}]
    options: dict[str, Any] = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
    try:
        return tokenizer.apply_chat_template(messages, **options)
    except TemplateError:
        return tokenizer.apply_chat_template(whole, **options)
