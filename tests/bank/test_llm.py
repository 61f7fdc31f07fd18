"""The bank of a language model, over real HTTP: whatever the model does, only fitting sentences get into it."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from fastgen.bank.answer_cache import AnswerCache
from fastgen.bank.chat import Answer
from fastgen.bank.endpoint import Patience
from fastgen.bank.llm import llm_messages, write_llm_bank
from fastgen.bank.read import check_bank
from fastgen.cli import main
from fastgen.errors import BankError, ChatError, Interrupted
from tests.chat_server import ChatServer, Reply, answer_well, classes_asked, completion, good_sentences

CLASSES = ["Pug", "Maine Coon", "Beagle"]
KEY = "sk-very-secret-0123456789"
DESCRIPTION = "Photos of pets."
QUICK = Patience(tries=3, wait=0.001, timeout=120)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


class Written:
    """A bank written against a server: `header`, `prompts` by class, what was `said`, and the file's `bytes`."""

    def __init__(self, server, out, classes=CLASSES, **options):
        self.said = []
        options = {"description": DESCRIPTION, "model": "m", "base_url": server.url, "patience": QUICK, **options}
        path = write_llm_bank(classes, out, say=self.said.append, **options)
        bank = check_bank(path)
        self.header, self.bytes = bank.header, path.read_bytes()
        self.rows = [row for _, row in bank.rows()]
        self.prompts = {c: [row.prompt for row in self.rows if row.class_ == c] for c in classes}


def at(*answers):
    """Answers with these functions of a request's body, then well."""
    return lambda body, number: answers[number](body) if number < len(answers) else answer_well(body, number)


def with_changes(**changes):
    """Good sentences but for some classes (their names without blanks); None leaves one out."""

    def answer(body):
        found = good_sentences(body, 0)
        for name in classes_asked(body):
            if (short := name.replace(" ", "")) in changes:
                found[name] = changes[short]
        return completion({name: text for name, text in found.items() if text is not None})

    return answer


def test_a_good_model(tmp_path):
    with ChatServer() as server:
        bank = Written(server, tmp_path / "pets.jsonl", per_class=3, concurrency=1, refs="petworld")
        assert len(server.bodies) == 3
    assert bank.header.classes == tuple(CLASSES)
    assert bank.header.name == "pets"
    assert bank.header.defaults == {
        "refs": "petworld",
        "shots": 1,
        "policy": "ags",
        "prefix": "best quality, high quality, ",
        "negative_prompt": "monochrome, lowres, bad anatomy, worst quality, low quality",
        "scheduler": "ddim",
        "method": "dalda",
    }
    assert bank.prompts["Maine Coon"] == [f"A photo of a Maine Coon on meadow number {i}." for i in range(3)]
    assert [(row.id, row.label) for row in bank.rows[:4]] == [
        *((f"00000-00{i}", 0) for i in range(3)),
        ("00001-000", 1),
    ]
    made = bank.header.provenance
    assert {name: made[name] for name in made if name not in ("date", "instruction_sha256")} == {
        "profile": "dalda-paper",
        "kind": "llm",
        "model": "m",
        "endpoint": server.url.split("/")[2],
        "answers": 3,
        "prompt_tokens": 300,
        "completion_tokens": 60,
        "temperature": 1.0,
        "per_class": 3,
        "batch_classes": 128,
        "description": DESCRIPTION,
    }
    assert bank.said[-1] == "9 sentences from 3 answers (3 new, 0 from the cache), 300 prompt and 60 completion tokens"


def test_a_rerun_asks_nothing_and_writes_the_same_bytes(tmp_path):
    with ChatServer(at(with_changes(Pug="A dog."))) as server:
        first = Written(server, tmp_path / "bank.jsonl", per_class=4)
        asked = len(server.bodies)
        again = Written(server, tmp_path / "bank.jsonl", per_class=4, concurrency=1)
        assert len(server.bodies) == asked == 5
    assert again.bytes == first.bytes
    assert "(0 new, 5 from the cache)" in again.said[-1]


def test_a_larger_bank_pays_only_for_what_is_new(tmp_path):
    with ChatServer() as server:
        small = Written(server, tmp_path / "bank.jsonl", per_class=2)
        large = Written(server, tmp_path / "bank.jsonl", per_class=3)
        assert len(server.bodies) == 3
    assert [prompts[:2] for prompts in large.prompts.values()] == list(small.prompts.values())


def test_another_model_temperature_or_description_is_asked_anew(tmp_path):
    with ChatServer() as server:
        for options in ({}, {"model": "n"}, {"temperature": 0.5}, {"description": "Paintings."}):
            Written(server, tmp_path / "bank.jsonl", per_class=1, cache=tmp_path / "cache", **options)
        assert len(server.bodies) == 4
    assert len(list((tmp_path / "cache").iterdir())) == 4


def by_content(body, number):
    """An answer that depends on the classes asked for alone; the first classes take longest."""
    classes = classes_asked(body)
    return completion(good_sentences(body, len(classes[0])))._replace(seconds=0.05 * (classes[0] == "Pug"))


def test_concurrency_changes_nothing(tmp_path):
    banks = []
    for concurrency in (1, 4):
        with ChatServer(by_content) as server:
            options = {"cache": tmp_path / f"cache{concurrency}", "per_class": 1, "batch_classes": 1}
            bank = Written(server, tmp_path / "bank.jsonl", concurrency=concurrency, **options)
        banks.append([(row.id, row.prompt) for row in bank.rows])
    assert banks[0] == banks[1]


def test_a_long_list_is_cut_into_requests_of_equal_length(tmp_path):
    names = [f"class {chr(97 + i)}" for i in range(7)]
    with ChatServer() as server:
        bank = Written(server, tmp_path / "bank.jsonl", names, per_class=2, batch_classes=3, concurrency=1)
        assert [classes_asked(body) for body in server.bodies] == 2 * [names[:2], names[2:4], names[4:]]
    assert bank.header.provenance["batch_classes"] == 3


@pytest.mark.parametrize(
    "first, fault",
    [
        (with_changes(Pug=None), None),
        (with_changes(Pug="A dog."), "it does not contain the class name 'Pug'"),
        (with_changes(Pug="A pug and a beagle."), "it names another class: Beagle"),
        (with_changes(Pug=["A pug."]), '["A pug."] is not one sentence of plain text'),
        (with_changes(Pug="A pug " + "in deep snow " * 30), "it is too long: 100 tokens, at most 77 are read"),
        (with_changes(Pug=None, Poodle="x"), None),
    ],
    ids=["missing", "unnamed", "other", "list", "long", "missing-2"],
)
def test_only_what_is_wrong_is_asked_again_and_told_why(tmp_path, first, fault):
    with ChatServer(at(first)) as server:
        bank = Written(server, tmp_path / "bank.jsonl", per_class=1)
        assert [classes_asked(body) for body in server.bodies] == [CLASSES, ["Pug"]]
        second = server.bodies[1]["messages"][-1]["content"]
    assert bank.prompts["Pug"] == ["A photo of a Pug on meadow number 1."]
    assert bank.prompts["Beagle"] == ["A photo of a Beagle on meadow number 0."]
    assert "1 of 3 sentences cannot be used or are missing and are asked for again" in bank.said
    assert ("avoid this" in second) == (fault is not None)
    assert fault is None or json.dumps(fault)[1:-1] in second


def test_repeated_sentences_are_asked_again(tmp_path):
    with ChatServer(lambda body, number: completion(good_sentences(body, max(1, number)))) as server:
        bank = Written(server, tmp_path / "bank.jsonl", per_class=2, concurrency=1)
        assert len(server.bodies) == 3
        assert "it repeats an earlier sentence" in server.bodies[2]["messages"][-1]["content"]
    assert bank.prompts["Pug"] == [f"A photo of a Pug on meadow number {i}." for i in (1, 2)]


def test_an_answer_in_another_order_mislabels_nothing(tmp_path):
    def turned(body, number):
        return completion(dict(reversed(good_sentences(body, number).items())))

    with ChatServer(turned) as server:
        bank = Written(server, tmp_path / "bank.jsonl", per_class=1)
    for class_, prompts in bank.prompts.items():
        assert class_ in prompts[0]


@pytest.mark.parametrize("wrap", ["```json\n%s\n```", "Sure!\n%s\nBye.", '{"prompts": %s}'])
def test_wrapped_answers_are_read(tmp_path, wrap):
    with ChatServer(lambda body, number: completion(wrap % json.dumps(good_sentences(body, number)))) as server:
        Written(server, tmp_path / "bank.jsonl", per_class=1)
        assert len(server.bodies) == 1


def test_keys_in_another_spelling_are_read_and_unknown_ones_are_reported(tmp_path):
    def answer(body, number):
        return completion({k.upper().replace(" ", "-"): v for k, v in good_sentences(body, 0).items()} | {"Cow": "x"})

    with ChatServer(answer) as server:
        bank = Written(server, tmp_path / "bank.jsonl", per_class=1)
        assert len(server.bodies) == 1
    assert 'ignored 1 keys that are no class asked for: "Cow"' in bank.said


def test_a_cut_off_answer_is_continued(tmp_path):
    def cut(body):
        text = json.dumps(good_sentences(body, 0))
        return completion(text[: text.index("Maine Coon") + 20], finish_reason="length")

    with ChatServer(at(cut)) as server:
        bank = Written(server, tmp_path / "bank.jsonl", per_class=1)
        assert [classes_asked(body) for body in server.bodies] == [CLASSES, CLASSES[1:]]
    assert bank.prompts["Pug"] == ["A photo of a Pug on meadow number 0."]


def test_braces_are_kept_and_formatted_never(tmp_path):
    with ChatServer(at(with_changes(Pug="A pug under a {class} sign, {0}% {name}."))) as server:
        bank = Written(server, tmp_path / "bank.jsonl", per_class=1)
    assert bank.prompts["Pug"] == ["A pug under a {class} sign, {0}% {name}."]


def test_text_beyond_ascii_survives(tmp_path):
    with ChatServer(at(with_changes(Pug="A pug at a café, 東京."))) as server:
        bank = Written(server, tmp_path / "bank.jsonl", per_class=1)
    assert bank.prompts["Pug"] == ["A pug at a café, 東京."]


def test_a_model_that_never_gets_it_right_is_one_error_and_can_go_on(tmp_path):
    out = tmp_path / "bank.jsonl"
    with ChatServer(lambda body, number: with_changes(Pug="A dog.", Beagle=None)(body)) as server:
        with pytest.raises(BankError) as caught:
            Written(server, out, per_class=1)
        assert len(server.bodies) == 6
        message = str(caught.value)
        assert "after 5 rounds without a new sentence, 2 classes are not complete" in message
        assert "class 'Pug': 1 of 1 sentences are missing; the last one: it does not contain the class name" in message
        assert "class 'Beagle': 1 of 1 sentences are missing; the last one: no answer had one" in message
        assert str(tmp_path / "bank.jsonl.cache") in message
        assert not out.exists()
        server.answering = answer_well
        bank = Written(server, out, per_class=1)
        assert len(server.bodies) == 7, "what was good is not asked again"
        assert classes_asked(server.bodies[-1]) == ["Pug", "Beagle"]
    assert bank.prompts["Maine Coon"] == ["A photo of a Maine Coon on meadow number 0."]


def test_bad_weather_on_the_way_leaves_no_trace(tmp_path):
    bad = [Reply(b"", 429, {"Retry-After": "0"}), Reply(b"", 500), Reply(b'{"choi')]
    with ChatServer(lambda body, n: bad[n // 2] if n in (0, 2, 4) else answer_well(body, n)) as server:
        bank = Written(server, tmp_path / "bank.jsonl", per_class=3, concurrency=1)
        assert len(server.bodies) == 6
    assert bank.header.provenance["answers"] == 3


def test_an_interrupted_run_continues(tmp_path):
    out = tmp_path / "bank.jsonl"
    with ChatServer(lambda body, n: Reply(b"", 400) if n == 2 else answer_well(body, n)) as server:
        with pytest.raises(ChatError, match="answered 400"):
            Written(server, out, per_class=4, concurrency=1)
        assert len(server.bodies) == 3, "after the error nothing is asked"
        bank = Written(server, out, per_class=4, concurrency=1)
        assert len(server.bodies) == 5
    assert "(2 new, 2 from the cache)" in bank.said[-1]


def test_a_signal_stops_after_the_answers_under_way(tmp_path):
    def stopping(body, number):
        if number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return answer_well(body, number)._replace(seconds=0.4 * (number == 1))

    with ChatServer(stopping) as server:
        with pytest.raises(Interrupted, match="stopped by SIGTERM: every answer so far is in .*cache. Run the same"):
            Written(server, tmp_path / "bank.jsonl", per_class=4, concurrency=1)
        assert len(server.bodies) == 2
        assert len(list((tmp_path / "bank.jsonl.cache").iterdir())) == 2
        server.answering = answer_well
        Written(server, tmp_path / "bank.jsonl", per_class=4)
        assert len(server.bodies) == 4


def test_a_killed_process_loses_only_the_answer_under_way(tmp_path):
    out, names = tmp_path / "bank.jsonl", tmp_path / "names.txt"
    names.write_text("\n".join(CLASSES))
    reached = threading.Event()

    def hanging(body, number):
        if number == 2:
            reached.set()
        return answer_well(body, number)._replace(seconds=30.0 * (number == 2))

    with ChatServer(hanging) as server:
        words = ["--classes", names, "--out", out, "--model", "m", "--base-url", server.url, "--concurrency", 1]
        words = [sys.executable, "-m", "fastgen.cli", "bank", "llm", "--description", DESCRIPTION, *map(str, words)]
        with subprocess.Popen(words, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2]) as process:
            came = reached.wait(120)
            process.kill()
        assert came
        assert not out.exists()
        server.answering = answer_well
        bank = Written(server, out, per_class=10)
        assert len(server.bodies) == 3 + 8
    assert "(8 new, 2 from the cache)" in bank.said[-1]
    assert [path.suffix for path in (tmp_path / "bank.jsonl.cache").iterdir()] == [".json"] * 10


def test_an_answer_without_usage_is_counted_as_such(tmp_path):
    with ChatServer(lambda body, n: completion(good_sentences(body, n), usage={})) as server:
        bank = Written(server, tmp_path / "bank.jsonl", per_class=2)
    assert bank.header.provenance["answers_without_usage"] == 2
    assert bank.said[-1].endswith("0 prompt and 0 completion tokens; 2 answers did not say how many")


def test_a_damaged_answer_on_disk_is_named(tmp_path):
    with ChatServer() as server:
        Written(server, tmp_path / "bank.jsonl", per_class=1)
        (file,) = (tmp_path / "bank.jsonl.cache").iterdir()
        for content in ("{", "{}", file.read_text().replace('"m"', '"n"')):
            file.write_text(content)
            with pytest.raises(ChatError, match=f"{file.name}: is not what fastgen wrote .*; delete it"):
                Written(server, tmp_path / "bank.jsonl", per_class=1)


@pytest.mark.parametrize(
    "classes, options, message",
    [
        ([], {}, "field 'classes': got []"),
        (["pug", "pug"], {}, "field 'classes[1]': got \"pug\", allowed: each class once"),
        (["pug", "Pug"], {}, "got 'pug' and 'Pug', allowed: names that differ in more than case"),
        (CLASSES, {"description": " "}, "description: got nothing"),
        (CLASSES, {"per_class": 0}, "per_class: got 0, allowed: a whole number from 1"),
        (CLASSES, {"batch_classes": 0}, "batch_classes: got 0"),
        (CLASSES, {"concurrency": -1}, "concurrency: got -1"),
        (CLASSES, {"temperature": 3}, "temperature: got 3, allowed: a number from 0 to 2"),
        (CLASSES, {"temperature": float("nan")}, "temperature: got nan"),
        (CLASSES, {"refs": "../up"}, "field 'defaults.refs'"),
        (CLASSES, {"model": "./nowhere", "base_url": None}, "no such folder"),
        (CLASSES, {"model": " "}, "empty --model"),
    ],
)
def test_bad_arguments_ask_nothing_and_write_nothing(tmp_path, classes, options, message):
    with ChatServer() as server, pytest.raises((BankError, ChatError)) as caught:
        Written(server, tmp_path / "bank.jsonl", classes, **options)
    assert message in str(caught.value)
    assert server.bodies == []
    assert list(tmp_path.iterdir()) == []


def command(tmp_path, *words):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    fixed = ("bank", "llm", "--classes", names, "--description", DESCRIPTION, "--model", "m", "--per-class", 2)
    return CliRunner().invoke(main, [str(w) for w in (*fixed, *words)], catch_exceptions=False)


def test_a_dry_run_prints_the_messages_and_asks_nothing(tmp_path):
    with ChatServer() as server:
        out = tmp_path / "bank.jsonl"
        result = command(tmp_path, "--out", out, "--base-url", server.url, "--dry-run", "--batch-classes", 2)
    assert result.exit_code == 0
    assert server.bodies == []
    assert result.output.count("--- system\n") == result.output.count("--- user\n") == 2
    assert f"Data set:\n{DESCRIPTION}\n\nClasses (1):\n" + '["Pug"]' in result.output
    assert not out.exists()


def test_the_dry_run_shows_what_is_sent(tmp_path):
    with ChatServer() as server:
        Written(server, tmp_path / "bank.jsonl", per_class=1)
    assert [body["messages"] for body in server.bodies] == llm_messages(CLASSES, description=DESCRIPTION)


@pytest.mark.parametrize("kind", ["llm", "template"])
def test_a_class_file_in_another_encoding_is_one_error(tmp_path, kind):
    (tmp_path / "names").write_bytes(b"caf\xe9")
    words = ["--description", "x", "--model", "m"] if kind == "llm" else []
    words = ["bank", kind, "--classes", str(tmp_path / "names"), "--out", str(tmp_path / "b.jsonl"), *words]
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 2
    assert "names: got bytes that are not UTF-8" in result.output


def test_the_command_writes_a_bank(tmp_path):
    with ChatServer() as server:
        result = command(tmp_path, "--out", tmp_path / "b.jsonl", "--base-url", server.url)
    assert result.exit_code == 0
    assert check_bank(tmp_path / "b.jsonl").count == 6
    assert "6 sentences from 2 answers" in result.output


def test_the_key_is_nowhere(tmp_path, capfd):
    """A server that repeats the key wherever it can: in errors, in answers, in headers."""

    def leaky(body, number):
        if number == 1:
            return Reply(json.dumps({"error": {"message": f"slow down, {KEY}"}}).encode(), 429)
        if number == 3:
            return Reply(f"no entry for {KEY}".encode(), 403, {"X-Key": KEY})
        found = {**good_sentences(body, number), KEY: KEY, "Pug": f"A pug called {KEY} number {number}."}
        return completion(found, finish_reason=KEY, id=KEY)

    with ChatServer(leaky) as server:
        refused = command(tmp_path, "--out", tmp_path / "b.jsonl", "--base-url", server.url, "--per-class", 4)
        assert refused.exit_code == 2
        done = command(tmp_path, "--out", tmp_path / "b.jsonl", "--base-url", server.url)
        assert done.exit_code == 0
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= 4
    everything = refused.output + done.output + "".join(capfd.readouterr()) + "".join(map(Path.read_text, written))
    assert KEY not in everything
    assert "A pug called ***" in everything


def test_many_threads_keep_every_answer_once(tmp_path):
    names = [f"class {i:03d}" for i in range(40)]
    with ChatServer(by_content) as server:
        Written(server, tmp_path / "bank.jsonl", names, per_class=1, batch_classes=1, concurrency=16)
        assert len(server.bodies) == 40
    assert len(list((tmp_path / "bank.jsonl.cache").iterdir())) == 40
    assert threading.active_count() < 10


def test_an_answer_is_on_disk_before_the_next_question(tmp_path, monkeypatch):
    """So that kill -9 loses at most the answers under way."""
    kept = []
    put = AnswerCache.put

    def noting(self, request, answer: Answer) -> None:
        put(self, request, answer)
        kept.append(request.call)

    monkeypatch.setattr(AnswerCache, "put", noting)
    seen = []
    with ChatServer(lambda body, n: (seen.append(len(kept)), answer_well(body, n))[1]) as server:
        Written(server, tmp_path / "bank.jsonl", per_class=3, concurrency=1)
    assert seen == [0, 1, 2]
