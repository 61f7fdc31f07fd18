"""A chat endpoint over real HTTP: what passes is tried again, the rest is one clear error, the key stays secret."""

import datetime
import email.utils
import json
import socket
import time

import pytest

from fastgen.bank.chat import Request
from fastgen.bank.endpoint import Endpoint, Patience
from fastgen.errors import ChatError
from tests.chat_server import USAGE, ChatServer, Reply, completion

KEY = "sk-very-secret-0123456789"
QUICK = Patience(tries=3, wait=0.001, timeout=120)
REQUEST = Request(
    model={}, messages=[{"role": "user", "content": "hello"}], temperature=0.5, call=0, attempt=0, sentences=1
)
GOOD = completion("hi")


def ask(server, *, patience=QUICK, **options):
    return Endpoint("m", server.url, patience=patience, **options).ask(REQUEST)


def first(*replies):
    """Answers with these replies, then with good ones."""
    return lambda body, number: replies[number] if number < len(replies) else GOOD


def test_a_good_answer(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    with ChatServer(first()) as server:
        answer = ask(server)
    assert (answer.text, answer.finish) == ("hi", "stop")
    assert (answer.prompt_tokens, answer.completion_tokens) == tuple(USAGE.values())
    assert answer.date == datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    assert server.bodies == [{"model": "m", "messages": REQUEST.messages, "temperature": 0.5}]
    assert server.paths == ["/v1/chat/completions"]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert server.headers[0]["User-Agent"].startswith("fastgen/")


def test_without_a_key_none_is_sent(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with ChatServer(first()) as server:
        assert ask(server).text == "hi"
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize(
    "bad",
    [
        Reply(b"busy", 429),
        Reply(b'{"error": {"message": "overloaded"}}', 500),
        Reply(b"", 503),
        Reply(b"", 529),
        Reply(b"late", 408),
        Reply(GOOD.body[:-20]),
        Reply(GOOD.body, length=len(GOOD.body) + 10),
        Reply(b"<html>proxy</html>"),
        Reply(b'{"error": "no worker"}'),
        Reply(b'{"choices": []}'),
        Reply(b"[]"),
        Reply(b"\xff"),
    ],
    ids=lambda bad: f"{bad.status}-{bad.body[:12]!r}",
)
def test_what_may_pass_is_tried_again(bad):
    with ChatServer(first(bad, bad)) as server:
        assert ask(server).text == "hi"
    assert len(server.bodies) == 3


def test_a_slow_answer_is_given_up_and_asked_for_again():
    with ChatServer(first(GOOD._replace(seconds=30.0))) as server:
        assert ask(server, patience=Patience(tries=50, wait=0.001, timeout=1.0)).text == "hi"
    assert len(server.bodies) >= 2


def test_an_answer_that_trickles_is_given_up_too():
    dripping = GOOD._replace(drip=0.2)
    with ChatServer(lambda body, number: dripping if number == 0 else GOOD) as server:
        assert ask(server, patience=Patience(tries=50, wait=0.001, timeout=1.0)).text == "hi"
    assert len(server.bodies) >= 2


def test_never_an_answer_is_one_error():
    with (
        ChatServer(lambda body, number: GOOD._replace(seconds=1.0)) as server,
        pytest.raises(ChatError, match=r"no answer within 0.1 s, in 2 tries"),
    ):
        ask(server, patience=Patience(tries=2, wait=0.001, timeout=0.1))


def test_connection_refused_is_one_error():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(ChatError, match=rf"{url}: the connection failed \(.*refused.*\), in 3 tries"):
        Endpoint("m", url, patience=QUICK).ask(REQUEST)


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_respected(as_date):
    later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=2)
    value = email.utils.format_datetime(later, usegmt=True) if as_date else "0.4"
    began = time.monotonic()
    with ChatServer(first(Reply(b"", 429, {"Retry-After": value}))) as server:
        assert ask(server).text == "hi"
    assert time.monotonic() - began > 0.35
    assert len(server.bodies) == 2


def test_a_wait_of_hours_is_an_error_at_once():
    with (
        ChatServer(first(Reply(b"", 429, {"Retry-After": "7200"}))) as server,
        pytest.raises(ChatError, match="answered 429 .*; it asks to wait 7200 s"),
    ):
        ask(server)
    assert len(server.bodies) == 1


def test_waits_double_and_are_cut_short_by_close():
    with ChatServer(lambda body, number: Reply(b"", 500)) as server:
        endpoint = Endpoint("m", server.url, patience=Patience(tries=9, wait=60, timeout=5))
        endpoint.close()
        with pytest.raises(ChatError, match="answered 500"):
            endpoint.ask(REQUEST)
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "status, advice",
    [
        (400, "check --model and --temperature"),
        (401, "check the key in the environment variable OPENAI_API_KEY"),
        (403, "this key may not use this model"),
        (404, "--base-url, which usually ends in /v1"),
        (422, ""),
    ],
)
def test_what_will_not_pass_is_one_error_at_once(status, advice, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    body = json.dumps({"error": {"message": f"bad {KEY} \x1b[31m", "code": "nope"}}).encode()
    with ChatServer(lambda _, number: Reply(body, status)) as server, pytest.raises(ChatError) as caught:
        ask(server)
    assert len(server.bodies) == 1
    message = str(caught.value)
    assert f"answered {status}" in message
    assert advice in message
    assert 'bad *** \\u001b[31m nope"' in message
    assert KEY not in message


def test_401_without_a_key_says_where_to_put_it(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with ChatServer(lambda _, number: Reply(b"", 401)) as server, pytest.raises(ChatError, match="no key was sent"):
        ask(server)


def test_an_empty_account_is_not_asked_again():
    body = b'{"error": {"message": "pay first", "code": "insufficient_quota"}}'
    with ChatServer(lambda _, number: Reply(body, 429)) as server, pytest.raises(ChatError, match="pay first"):
        ask(server)
    assert len(server.bodies) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(status, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ChatServer() as other:
        target = f"{other.url}/x?token={KEY}"
        with ChatServer(lambda _, number: Reply(b"", status, {"Location": target})) as server:
            with pytest.raises(ChatError, match="give --base-url the final address") as caught:
                ask(server)
    assert other.bodies == []
    assert len(server.bodies) == 1
    assert KEY not in str(caught.value)


def test_an_answer_that_repeats_the_key_loses_it(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ChatServer(lambda _, number: completion(f"you are {KEY}")) as server:
        assert ask(server).text == "you are ***"


def test_a_short_word_as_key_does_not_spoil_sentences(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with ChatServer(lambda _, number: completion("one or none")) as server:
        assert ask(server).text == "one or none"


@pytest.mark.parametrize("key", ["two words-secret", "line\nbreak-secret", "schlüssel-secret"])
def test_a_key_that_cannot_be_sent_is_not_repeated(key, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ChatError, match="OPENAI_API_KEY holds no key") as caught:
        Endpoint("m", "http://localhost/v1")
    assert "secret" not in str(caught.value)


def test_another_variable_for_the_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "the-wrong-one-of-the-two")
    monkeypatch.setenv("MY_KEY", KEY)
    with ChatServer(first()) as server:
        ask(server, key_env="MY_KEY")
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(ChatError, match="MY_KEY is not set"):
        Endpoint("m", "http://localhost/v1", key_env="MY_KEY")


@pytest.mark.parametrize(
    "url",
    [
        "http://me:sk-secret@localhost/v1",
        "https://localhost/v1?api-key=sk-secret",
        "https://localhost/v1#sk-secret",
        "localhost:8000/v1",
        "file:///etc/passwd",
        "http://",
        "http://a b/v1",
        "http://localhost:port/v1",
        "http://localhost/v1\nX: y",
        "",
    ],
)
def test_addresses_that_are_refused(url):
    with pytest.raises(ChatError, match=r"allowed: --base-url http\(s\)") as caught:
        Endpoint("m", url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url, host",
    [("https://api.example.org/v1/", "api.example.org"), ("http://[::1]:8000", "[::1]:8000")],
)
def test_the_identity_has_the_host_and_no_key(url, host, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    identity = Endpoint("m", url).identity
    assert identity == {"model": "m", "base_url": url.rstrip("/"), "endpoint": host}


def test_no_such_host_is_one_error():
    with pytest.raises(ChatError, match="the connection failed"):
        Endpoint("m", "http://a..b/v1", patience=QUICK).ask(REQUEST)


@pytest.mark.parametrize("content", [None, 3, ["x"]])
def test_an_answer_without_text_is_an_empty_text(content):
    body = {"choices": [{"message": {"content": content}, "finish_reason": None}], "usage": None}
    with ChatServer(lambda _, number: Reply(json.dumps(body).encode())) as server:
        answer = ask(server)
    assert (answer.text, answer.finish, answer.prompt_tokens, answer.completion_tokens) == ("", None, None, None)
