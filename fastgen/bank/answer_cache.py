"""Answers of language models on disk, one file per request: what was paid for once is not asked again."""

import json
from dataclasses import asdict
from pathlib import Path

from fastgen.bank.chat import Answer, Request
from fastgen.errors import ChatError
from fastgen.files import atomic_write_text

VERSION = 1


class AnswerCache:
    """A folder of JSON files, each named after its request's SHA-256 and written atomically.

    Every answer is kept, unusable ones too: a rerun then goes the same way as the run before it.
    """

    def __init__(self, folder: str | Path) -> None:
        """Use a folder; it is made with the first answer."""
        self.folder = Path(folder)

    def get(self, request: Request) -> Answer | None:
        """Return the answer of a request that was answered before, else None.

        Raises:
            ChatError: the file is damaged.
        """
        path = self._path(request)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["fastgen_answer"] != VERSION or content["request"] != asdict(request):
                raise ValueError("another request or format")
            return Answer(**content["answer"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ChatError(f"{path}: cannot be read ({error.strerror or error})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ChatError(f"{path}: is not what fastgen wrote ({error}); delete it to ask again") from None

    def put(self, request: Request, answer: Answer) -> None:
        """Keep an answer.

        Raises:
            OutputError: the folder cannot be written.
        """
        content = {"fastgen_answer": VERSION, "request": asdict(request), "answer": asdict(answer)}
        atomic_write_text(self._path(request), json.dumps(content, indent=1) + "\n")

    def _path(self, request: Request) -> Path:
        return self.folder / f"{request.sha256}.json"
