"""A language model from a local folder, run by transformers; it answers the same request always with the same text."""

from pathlib import Path
from typing import Any

from fastgen.bank.chat import Answer, Messages, Request
from fastgen.bank.local_model import LocalModel
from fastgen.errors import ModelError

_ROOM = 256
_ROOM_PER_SENTENCE = 96
"""Most tokens of an answer: some for the JSON and a preface, and about twice what a sentence and its key need."""


class LocalChat(LocalModel):
    """A causal language model with a chat template; see `fastgen.bank.chat.Chat`."""

    READER, MODEL = "AutoTokenizer", "AutoModelForCausalLM"

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
        return self._answer(ids, prompt_tokens=length)


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
