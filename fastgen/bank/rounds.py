"""The sentences of a bank while a language model writes them: what is missing is asked for, round after round."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from fastgen.bank.answer_cache import AnswerCache
from fastgen.bank.asking import Result, ask_all
from fastgen.bank.chat import Answer, Chat, Request
from fastgen.bank.class_names import ClassNames
from fastgen.bank.instruction import messages_for
from fastgen.bank.sentences import Judge, read_answer
from fastgen.errors import SHOWN, BankError
from fastgen.fields import show
from fastgen.job import StopSignal

IDLE_ROUNDS = 5
"""So many rounds of new requests that bring no sentence, and the bank is given up."""

Item = TypeVar("Item")
Place = tuple[int, str]
"""A sentence's place in the bank: (call, class)."""


@dataclass(kw_only=True)
class Rounds:
    """The sentences of a bank while they come in, round by round.

    Round 0 asks for everything; each later one for what is still missing, and says why. A round ends when all its
    answers are there, and they are judged in the order of the requests: so nothing depends on which came first.

    Attributes:
        chat: the model.
        cache: its answers.
        judge: of the sentences.
        names: the classes.
        description: of the data set.
        temperature: of sampling.
        batch: most classes in one request.
        say: is told the progress.
        results: all answers that were used, in order.
        faults: what was wrong with the last sentence of a place; nothing where there was no sentence.
    """

    chat: Chat
    cache: AnswerCache
    judge: Judge
    names: ClassNames
    description: str
    temperature: float
    batch: int
    say: Callable[[str], None]
    results: list[Result] = field(default_factory=list)
    faults: dict[Place, str] = field(default_factory=dict)

    def run(self, places: Sequence[Place], concurrency: int, stop: StopSignal) -> dict[Place, str]:
        """Return a good sentence for every place.

        Args:
            places: those of the whole bank.
            concurrency: requests under way at once.
            stop: entered by the caller.

        Raises:
            BankError: sentences are still missing after `IDLE_ROUNDS` rounds that brought none.
            ChatError, ModelError, OutputError, Interrupted: as `ask_all`.
        """
        found: dict[Place, str] = {}
        idle = attempt = 0
        while missing := [place for place in places if place not in found]:
            if idle == IDLE_ROUNDS:
                raise self._given_up(places, missing)
            asked, requests = self._requests(missing, attempt)
            results = ask_all(
                self.chat, requests, self.cache, concurrency=concurrency, stop=stop, heard=self._progress(len(requests))
            )
            self.results += results
            new = self._judged(asked, results)
            found.update(new)
            if new:
                idle = 0
            elif any(result.fresh for result in results):
                idle += 1
            attempt += 1
        return found

    def _requests(self, missing: Sequence[Place], attempt: int) -> tuple[list[Sequence[Place]], list[Request]]:
        """Return what is still missing, cut into requests of one call each, and the requests."""
        calls: dict[int, list[Place]] = {}
        for place in missing:
            calls.setdefault(place[0], []).append(place)
        asked = [part for places in calls.values() for part in cut(places, self.batch)]
        return asked, [self._request(part, attempt) for part in asked]

    def _request(self, places: Sequence[Place], attempt: int) -> Request:
        """Return the request for some places of one call."""
        classes = [class_ for _, class_ in places]
        faults = {class_: self.faults[call, class_] for call, class_ in places if (call, class_) in self.faults}
        return Request(
            model=self.chat.identity,
            messages=messages_for(self.description, classes, faults),
            temperature=self.temperature,
            call=places[0][0],
            attempt=attempt,
            sentences=len(places),
        )

    def _judged(self, asked: Sequence[Sequence[Place]], results: Sequence[Result]) -> dict[Place, str]:
        """Return the good sentences of a round; note what is wrong with the others."""
        good: dict[Place, str] = {}
        ignored: list[str] = []
        for part, result in zip(asked, results, strict=True):
            reading = read_answer(result.answer.text, [class_ for _, class_ in part], self.names)
            ignored += reading.ignored
            for place in part:
                self.faults.pop(place, None)
                if place[1] not in reading.values:
                    continue
                sentence, fault = self.judge.take(place[1], reading.values[place[1]])
                if sentence is not None:
                    good[place] = sentence
                else:
                    self.faults[place] = fault
        bad = sum(map(len, asked)) - len(good)
        if bad:
            self.say(f"{bad} of {bad + len(good)} sentences cannot be used or are missing and are asked for again")
        if ignored:
            shown = ", ".join(show(key, width=40) for key in ignored[:SHOWN])
            self.say(f"ignored {len(ignored)} keys that are no class asked for: {shown}")
        return good

    def _progress(self, total: int) -> Callable[[Answer], None]:
        """Return a function that says how many answers of a round have come."""
        count = 0

        def heard(answer: Answer) -> None:
            nonlocal count
            count += 1
            self.say(f"answer {count} of {total}: {answer.completion_tokens or 'unknown'} tokens")

        return heard

    def _given_up(self, places: Sequence[Place], missing: Sequence[Place]) -> BankError:
        """Return the error that names the classes, with the last fault of each."""
        calls = len({call for call, _ in places})
        lacking: dict[str, list[Place]] = {}
        for place in missing:
            lacking.setdefault(place[1], []).append(place)
        lines = [
            f"class {class_!r}: {len(found)} of {calls} sentences are missing; "
            f"the last one: {self.faults.get(found[-1], 'no answer had one')}"
            for class_, found in lacking.items()
        ]
        first = (
            f"after {IDLE_ROUNDS} rounds without a new sentence, {len(lacking)} classes are not complete. All answers "
            f"are kept in {self.cache.folder}: the same command asks again for these only. Or try another model, "
            "or names that a sentence can hold:"
        )
        return BankError([first, *lines])

    def tokens(self) -> dict[str, int]:
        """Return the number of answers and the sums of their tokens; answers that did not say are counted."""
        answers = [result.answer for result in self.results]
        silent = sum(a.prompt_tokens is None or a.completion_tokens is None for a in answers)
        found = {
            "answers": len(answers),
            "prompt_tokens": sum(a.prompt_tokens or 0 for a in answers),
            "completion_tokens": sum(a.completion_tokens or 0 for a in answers),
        }
        return found | ({"answers_without_usage": silent} if silent else {})

    def summary(self) -> str:
        """Return what it took, for the terminal."""
        fresh = sum(result.fresh for result in self.results)
        tokens = self.tokens()
        silent = tokens.get("answers_without_usage")
        return (
            f"{tokens['answers']} answers ({fresh} new, {tokens['answers'] - fresh} from the cache), "
            f"{tokens['prompt_tokens']} prompt and {tokens['completion_tokens']} completion tokens"
            + (f"; {silent} answers did not say how many" if silent else "")
        )


def cut(items: Sequence[Item], most: int) -> list[Sequence[Item]]:
    """Cut a list into the fewest parts of at most `most` items, of nearly equal length."""
    count = math.ceil(len(items) / most)
    bounds = [i * len(items) // count for i in range(count + 1)]
    return [items[bounds[i] : bounds[i + 1]] for i in range(count)]
