"""Asks a vision-language model about every attribute of every picture, until the answers can be used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fastgen.bank.answer_cache import AnswerCache
from fastgen.bank.asking import Result, ask_all
from fastgen.bank.chat import Chat
from fastgen.bank.class_names import ClassNames
from fastgen.caption.questions import clean, cut, fault_of, question
from fastgen.caption.vision import ImageRequest
from fastgen.job import StopSignal

ATTEMPTS = 4
"""How often one question is asked, each time with what was wrong before."""
AGAIN = 0.7
"""Least temperature from the second time on: without it the same model would say the same again."""


class Place(NamedTuple):
    """One value that is wanted: the picture's file, by hash, and the name of the attribute."""

    image_sha256: str
    attribute: str


@dataclass(kw_only=True)
class Interview:
    """The questions about a folder of pictures.

    Attributes:
        chat: the model.
        cache: its answers.
        names: classes that no answer may name.
        descriptor: noun for whatever the data set shows.
        side: longer side in pixels that pictures are shrunk to.
        temperature: of the first question; later ones have at least `AGAIN`.
        say: is told the progress.
        results: all answers that were used, in order.
        faults: what was wrong with the answers of a place so far.
        shortened: values that were cut because no answer was short enough.
    """

    chat: Chat
    cache: AnswerCache
    names: ClassNames
    descriptor: str
    side: int
    temperature: float
    say: Callable[[str], None]
    results: list[Result] = field(default_factory=list)
    faults: dict[Place, list[str]] = field(default_factory=dict)
    shortened: int = 0

    def run(self, places: Sequence[Place], concurrency: int, stop: StopSignal) -> dict[Place, str]:
        """Return a good value for every place where there was one in `ATTEMPTS` attempts.

        Args:
            places: each once.
            concurrency: requests under way at once.
            stop: entered by the caller.

        Raises:
            ChatError, ModelError, OutputError, ReferenceImageError, Interrupted: as `ask_all`.
        """
        found: dict[Place, str] = {}
        long: dict[Place, str] = {}
        for attempt in range(ATTEMPTS):
            missing = [place for place in places if place not in found]
            if not missing:
                break
            if attempt:
                self.say(f"{len(missing)} answers cannot be used and are asked for again")
            for place, text in self._answers(missing, attempt, concurrency, stop).items():
                fault = fault_of(text, self.names)
                if fault is None:
                    found[place] = text
                else:
                    self.faults.setdefault(place, []).append(fault)
                if fault == "long":
                    long[place] = cut(text)
        rest = {place: text for place, text in long.items() if place not in found}
        self.shortened = len(rest)
        return {**found, **rest}

    def _answers(
        self, places: Sequence[Place], attempt: int, concurrency: int, stop: StopSignal
    ) -> dict[Place, str]:
        requests = [self._request(place, attempt) for place in places]
        count = 0

        def heard(answer: object) -> None:
            nonlocal count
            count += 1
            if count % 100 == 0 or count == len(requests):
                self.say(f"answer {count} of {len(requests)}")

        results = ask_all(self.chat, requests, self.cache, concurrency=concurrency, stop=stop, heard=heard)
        self.results += results
        return {
            place: clean(result.answer.text, place.attribute, self.descriptor)
            for place, result in zip(places, results, strict=True)
        }

    def _request(self, place: Place, attempt: int) -> ImageRequest:
        text = question(place.attribute, self.descriptor, self.faults.get(place, ()))
        return ImageRequest(
            model=self.chat.identity,
            messages=[{"role": "user", "content": text}],
            temperature=self.temperature if attempt == 0 else max(self.temperature, AGAIN),
            call=0,
            attempt=attempt,
            sentences=1,
            image_sha256=place.image_sha256,
            side=self.side,
        )
