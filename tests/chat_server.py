"""A chat endpoint on this machine that answers well, slowly, wrongly, partially or not at all, as a test tells it."""

import json
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

USAGE = {"prompt_tokens": 100, "completion_tokens": 20}


class Reply(NamedTuple):
    """What goes over the wire.

    `length` is the Content-Length where it should lie; `seconds` pass before, and `drip` seconds after every byte.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = {}
    length: int | None = None
    seconds: float = 0.0
    drip: float = 0.0


def completion(content: Any, **more: Any) -> Reply:
    """A good chat completion whose message is a text, or an object as JSON."""
    text = content if isinstance(content, str) else json.dumps(content)
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": more.pop("finish_reason", "stop")}
    return Reply(json.dumps({"choices": [choice], "usage": USAGE, **more}).encode())


def classes_asked(body: dict[str, Any]) -> list[str]:
    """The class list in the user's message of a request."""
    found = re.search(r"Classes \(\d+\):\n(.*)", body["messages"][-1]["content"])
    assert found is not None
    return json.loads(found.group(1))


def good_sentences(body: dict[str, Any], number: int) -> dict[str, str]:
    """One fitting sentence for every class asked for; `number` makes it new."""
    return {name: f"A photo of a {name} on meadow number {number}." for name in classes_asked(body)}


Answering = Callable[[dict[str, Any], int], Reply]


def answer_well(body: dict[str, Any], number: int) -> Reply:
    """The answer of a good model."""
    return completion(good_sentences(body, number))


class ChatServer:
    """Serves while entered; `answering` gets a request's body and its number from 0, and may be replaced any time."""

    def __init__(self, answering: Answering = answer_well) -> None:
        self.answering = answering
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> "ChatServer":
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # noqa: N802
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                reply = outer._reply(self.path, dict(self.headers), body)
                threading.Event().wait(reply.seconds)
                with suppress(OSError):  # the client may have given up
                    self.send_response(reply.status)
                    for name, value in reply.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(reply.body) if reply.length is None else reply.length))
                    self.end_headers()
                    for i in range(len(reply.body) if reply.drip else 0):
                        self.wfile.write(reply.body[i : i + 1])
                        threading.Event().wait(reply.drip)
                    self.wfile.write(b"" if reply.drip else reply.body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket.listen(64)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _reply(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Reply:
        with self._lock:
            number = len(self.bodies)
            self.bodies.append(body)
            self.headers.append(headers)
            self.paths.append(path)
        return self.answering(body, number)
