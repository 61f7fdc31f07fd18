"""What is asked of a language model and what it answers, wherever it runs."""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Protocol

from fastgen.files import sha256_json

Messages = list[dict[str, str]]
"""Messages of a chat, each with `role` (system or user) and `content`."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question.

    Attributes:
        model: what tells the asked model from any other, as JSON; never a key.
        messages: of the chat.
        temperature: of sampling, 0..2.
        call: which of the bank's calls it belongs to; equal questions of two calls get two answers.
        attempt: 0, or how often the call has been continued for sentences that were missing.
        sentences: how many are asked for.
    """

    model: dict[str, Any]
    messages: Messages
    temperature: float
    call: int
    attempt: int
    sentences: int

    @cached_property
    def sha256(self) -> str:
        """Names the request: 64 hex digits."""
        return sha256_json(asdict(self))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back.

    Attributes:
        text: of the answer; may be empty, cut off or nonsense.
        finish: why the model stopped, such as "stop" or "length"; None if it did not say.
        prompt_tokens, completion_tokens: as the model counts them; None if it did not say.
        date: day of the answer, ISO.
    """

    text: str
    finish: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    date: str


class Chat(Protocol):
    """A language model that can be asked, from several threads at once."""

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this model from any other, as JSON, for the cache and the provenance; never a key."""

    def ask(self, request: Request) -> Answer:
        """Answer one request.

        Raises:
            ChatError: there is no answer, and asking again would not help.
        """

    def close(self) -> None:
        """Give up waiting between tries: whoever is inside `ask` gets its answer or an error soon."""
