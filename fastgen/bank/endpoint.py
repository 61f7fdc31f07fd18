"""A language model behind an OpenAI-compatible chat endpoint, asked over HTTP with patience and with care for the key.

The key is read from the environment and sent to the endpoint's own address and nowhere else: redirects are not
followed, and should an answer or an error message repeat it, it is blotted out before anyone sees it.
"""

import datetime
import email.utils
import http.client
import json
import os
import random
import ssl
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fastgen import __version__
from fastgen.bank.chat import Answer, Request
from fastgen.errors import ChatError
from fastgen.fields import show

OPENAI_URL = "https://api.openai.com/v1"
KEY_ENV = "OPENAI_API_KEY"
_LARGEST = 1 << 24
"""Bytes of an answer that are read; no list of sentences is longer."""
_SECRET = 8
"""Keys that are shorter ("none", "EMPTY") are no secrets, and blotting them out would spoil sentences."""
_ADVICE = {
    400: "check --model and --temperature",
    403: "this key may not use this model, or this place",
    404: "check --model, and --base-url, which usually ends in /v1",
}


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait for an endpoint.

    Attributes:
        tries: how often a request is sent, when it fails in a way that may pass.
        wait: seconds before the second try; they double from try to try, with some chance added.
        longest_wait: most seconds between two tries. An endpoint that asks for more gets an error instead.
        timeout: seconds for one answer.
    """

    tries: int = 6
    wait: float = 1.0
    longest_wait: float = 300.0
    timeout: float = 600.0


class _Passing(Exception):
    """A failure that may pass; `after` is how many seconds the endpoint asks to wait."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class Endpoint:
    """A chat endpoint; see `fastgen.bank.chat.Chat`."""

    def __init__(self, model: str, base_url: str, *, key_env: str = KEY_ENV, patience: Patience | None = None) -> None:
        """Prepare; nothing is sent.

        Args:
            model: name of the model there.
            base_url: address of the API, such as `http://localhost:8000/v1`; without user, query or fragment.
            key_env: environment variable that holds the key; only its default may be unset (a server of one's own).
            patience: None takes the defaults.

        Raises:
            ChatError: the address or the key cannot be used; neither is repeated in the message.
        """
        self._host = _checked_host(base_url)
        self._base_url = base_url.rstrip("/")
        self._key_env, self._key = key_env, _key(key_env)
        self._model = model
        self._patience = patience or Patience()
        self._closed = threading.Event()
        self._opener = urllib.request.build_opener(_NoRedirects)

    @property
    def identity(self) -> dict[str, Any]:
        """Model, address and host."""
        return {"model": self._model, "base_url": self._base_url, "endpoint": self._host}

    def close(self) -> None:
        """End the waiting between tries."""
        self._closed.set()

    def ask(self, request: Request) -> Answer:
        """Send a request until it is answered.

        429, 5xx, timeouts, broken connections and answers that are no chat completion are tried again; anything
        else is an error at once.

        Raises:
            ChatError: the endpoint refuses, or did not answer in any of the tries.
        """
        patience = self._patience
        for attempt in range(1, patience.tries + 1):
            try:
                return self._answer(self._post(request))
            except _Passing as trouble:
                reason = str(trouble)
                delay = trouble.after
                if delay is not None and delay > patience.longest_wait:
                    raise ChatError(f"{self._base_url}: {reason}; it asks to wait {delay:.0f} s") from None
                if delay is None:
                    delay = min(patience.wait * 2 ** (attempt - 1), patience.longest_wait) * random.uniform(0.75, 1.25)
                if attempt == patience.tries or self._closed.wait(delay):
                    break
        raise ChatError(f"{self._base_url}: {reason}, in {attempt} tries; is it the right address, and up?")

    def _post(self, request: Request) -> bytes:
        """Send a request once and return the body of the answer."""
        body = {"model": self._model, "messages": self._messages(request), "temperature": request.temperature}
        post = urllib.request.Request(f"{self._base_url}/chat/completions", json.dumps(body).encode(), method="POST")
        post.add_header("Content-Type", "application/json")
        post.add_header("User-Agent", f"fastgen/{__version__}")
        if self._key:
            post.add_unredirected_header("Authorization", f"Bearer {self._key}")
        try:
            with self._opener.open(post, timeout=self._patience.timeout) as response:
                return _read(response, self._patience.timeout)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from None
        except (OSError, http.client.HTTPException, UnicodeError) as error:  # the last one: no such host name
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise ChatError(f"{self._base_url}: its certificate is not trusted ({cause.verify_message})") from None
            if isinstance(cause, TimeoutError):
                raise _Passing(f"no answer within {self._patience.timeout:g} s") from None
            raise _Passing(f"the connection failed ({self._shown(str(cause) or type(cause).__name__)})") from None

    def _messages(self, request: Request) -> list[dict[str, Any]]:
        """The messages as they are sent; what shows images puts them in here."""
        return list(request.messages)

    def _refusal(self, error: urllib.error.HTTPError) -> ChatError | _Passing:
        """Return the right exception for a status other than 2xx."""
        try:
            said = self._said(error.read(1 << 16))
        except (OSError, http.client.HTTPException):
            said = ""
        reason = f"answered {error.code} ({error.reason})" + (f": {said}" if said else "")
        if error.code in (408, 429) or error.code >= 500:
            if "insufficient_quota" not in said:
                return _Passing(self._hidden(reason), _retry_after(error.headers.get("Retry-After")))
        advice = _ADVICE.get(error.code, "")
        if 300 <= error.code < 400:
            place = _bare(error.headers.get("Location"))
            advice = f"it sends requests on to {place}: give --base-url the final address"
        if error.code == 401:
            advice = "check the key" if self._key else "no key was sent: put it"
            advice += f" in the environment variable {self._key_env}"
        return ChatError(f"{self._base_url}: {self._hidden(reason)}" + (f"; {advice}" if advice else ""))

    def _said(self, body: bytes) -> str:
        """Return the message in the body of a failed answer, short and safe to print."""
        text = self._hidden(body.decode(errors="replace"))
        try:
            found = json.loads(text)
            error = found.get("error", found)
            message = error if isinstance(error, str) else f"{error.get('message')} {error.get('code') or ''}".strip()
        except (ValueError, AttributeError, RecursionError):
            message = text
        return self._shown(message.strip()) if message.strip() else ""

    def _answer(self, body: bytes) -> Answer:
        """Take a chat completion apart."""
        try:
            found = json.loads(body)
            choice = found["choices"][0]
            content = choice["message"]["content"]
            finish, usage = choice.get("finish_reason"), found.get("usage") or {}
            counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise _Passing(f"the answer is no chat completion: {self._said(body)}") from None
        prompt_tokens, completion_tokens = (n if type(n) is int and n >= 0 else None for n in counts)
        return Answer(
            text=self._hidden(content) if isinstance(content, str) else "",
            finish=self._hidden(finish) if isinstance(finish, str) else None,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        )

    def _hidden(self, text: str) -> str:
        """Blot out the key."""
        return text.replace(self._key, "***") if len(self._key) >= _SECRET else text

    def _shown(self, text: str) -> str:
        return show(self._hidden(text), width=300)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses every redirect, so that messages and key go to no address but the given one."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Return None: the answer with the redirect is the result."""
        return None


def _checked_host(base_url: str) -> str:
    """Return host and port of an address."""
    allowed = "allowed: --base-url http(s)://HOST[:PORT]/PATH, without user, password, ? and #; the key is never in it"
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ChatError(f"got an address that cannot be read, {allowed}") from None
    if "@" in base_url or parts.query or parts.fragment or "?" in base_url or not base_url.isprintable():
        raise ChatError(f"got an address that may hold credentials, {allowed}")
    if parts.scheme not in ("http", "https") or not host or " " in base_url or not base_url.isascii():
        raise ChatError(f"got --base-url {show(base_url)}, {allowed}")
    host = f"[{host}]" if ":" in host else host
    return host if port is None else f"{host}:{port}"


def _key(key_env: str) -> str:
    """Return the key, "" if there is none."""
    key = os.environ.get(key_env, "").strip()
    if not key and key_env != KEY_ENV:
        raise ChatError(f"the environment variable {key_env} is not set; put the key there, or leave --key-env out")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ChatError(f"the environment variable {key_env} holds no key: blanks, line breaks or letters beyond ASCII")
    return key


def _read(response: http.client.HTTPResponse, timeout: float) -> bytes:
    """Read a body; one that trickles in for longer than `timeout` is too late."""
    deadline = time.monotonic() + timeout
    announced = _LARGEST if response.length is None else response.length
    pieces, size = [], 0
    while size < announced and (piece := response.read1(min(1 << 16, announced - size))):
        pieces.append(piece)
        size += len(piece)
        if size >= _LARGEST:
            raise _Passing(f"the answer is longer than {_LARGEST >> 20} MiB")
        if time.monotonic() > deadline:
            raise TimeoutError
    if announced not in (size, _LARGEST):
        raise http.client.IncompleteRead(b"", announced - size)
    return b"".join(pieces)


def _retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for (a number or a date); None without a usable one."""
    if value is None:
        return None
    try:
        return max(0.0, float(value)) if float(value) < float("inf") else None
    except ValueError:
        pass
    try:
        then = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    then = then if then.tzinfo else then.replace(tzinfo=datetime.timezone.utc)
    return max(0.0, (then - datetime.datetime.now(datetime.timezone.utc)).total_seconds())


def _bare(location: str | None) -> str:
    """Return a redirect's address without what might be secret in it."""
    try:
        parts = urlsplit(location or "")
        return show(f"{parts.scheme}://{parts.hostname}{parts.path}" if parts.hostname else parts.path)
    except ValueError:
        return "another one"
