"""Puts many requests to a language model, several at once, and keeps every answer the moment it comes in."""

import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from fastgen.bank.answer_cache import AnswerCache
from fastgen.bank.chat import Answer, Chat, Request
from fastgen.job import StopSignal

_POLL = 0.2
"""Seconds between two looks at whether a signal came in."""


class Result(NamedTuple):
    """An answer, and whether it was asked for just now (else it was in the cache)."""

    answer: Answer
    fresh: bool


def number_problems(temperature: float, **counts: int) -> list[str]:
    """What is wrong with the numbers that a model is asked with: a temperature, and counts from 1."""
    problems = []
    if not 0 <= temperature <= 2:
        problems.append(f"temperature: got {temperature!r}, allowed: a number from 0 to 2")
    for name, value in counts.items():
        if type(value) is not int or value < 1:
            problems.append(f"{name}: got {value!r}, allowed: a whole number from 1")
    return problems


def ask_all(
    chat: Chat,
    requests: Sequence[Request],
    cache: AnswerCache,
    *,
    concurrency: int,
    stop: StopSignal,
    heard: Callable[[Answer], None] = lambda answer: None,
) -> list[Result]:
    """Return the answers in the order of the requests, whatever the order in which they come.

    After an error or a stop signal no further request is sent; those under way are waited for and kept, because
    they have been paid for.

    Args:
        chat: the model.
        requests: what to ask.
        cache: answers of earlier runs; new ones go in.
        concurrency: requests under way at once.
        stop: entered by the caller.
        heard: is called with every new answer, in the caller's thread.

    Raises:
        ChatError, ModelError, OutputError: the first error.
        Interrupted: a stop signal came in.
    """
    answers = [cache.get(request) for request in requests]
    results = [None if answer is None else Result(answer, False) for answer in answers]
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for i in (missing := [i for i, answer in enumerate(answers) if answer is None]):
        todo.put(i)
    halt = threading.Event()
    done = _start(chat, requests, todo, cache, threads=min(concurrency, len(missing)), halt=halt)
    waiting = len(missing)
    error: BaseException | None = None
    while waiting:
        with suppress(queue.Empty):
            i, found = done.get(timeout=_POLL)
            waiting -= 1
            if isinstance(found, Answer):
                results[i] = Result(found, True)
                heard(found)
            else:
                error = error or found
        if error is not None or stop.requested:
            halt.set()
            chat.close()
            waiting -= len(_drained(todo))
    stop.check(f"every answer so far is in {cache.folder}")
    if error is not None:
        raise error
    return [result for result in results if result is not None]


def _start(
    chat: Chat,
    requests: Sequence[Request],
    todo: "queue.SimpleQueue[int]",
    cache: AnswerCache,
    *,
    threads: int,
    halt: threading.Event,
) -> "queue.SimpleQueue[tuple[int, Answer | BaseException]]":
    """Let threads work through `todo`, numbers of requests; what comes of each is put into the returned queue.

    With the first error, or when the caller sets `halt`, they take no more.
    """
    done: queue.SimpleQueue[tuple[int, Answer | BaseException]] = queue.SimpleQueue()

    def work() -> None:
        with suppress(queue.Empty):
            while not halt.is_set():
                i = todo.get_nowait()
                try:
                    answer = chat.ask(requests[i])
                    cache.put(requests[i], answer)
                except BaseException as error:  # raised again by whoever reads the queue
                    halt.set()
                    done.put((i, error))
                else:
                    done.put((i, answer))

    for _ in range(threads):
        threading.Thread(target=work, daemon=True).start()  # a second Ctrl-C must not wait for them
    return done


def _drained(todo: "queue.SimpleQueue[int]") -> list[int]:
    """Empty a queue and return what was in it."""
    found = []
    with suppress(queue.Empty):
        while True:
            found.append(todo.get_nowait())
    return found
