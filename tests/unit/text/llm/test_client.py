import json
import re
import threading
import time
from email.utils import formatdate

import pytest

from slowfast.text.llm.client import (
    LONGEST_WAIT_SECONDS,
    Server,
    ServerFailureError,
    ServerRefusalError,
    StoppedError,
    server_from_environment,
)

MESSAGES = [
    {"role": "user", "content": "Class name: repotting a houseplant"},
    {"role": "assistant", "content": "{}"},
    {"role": "user", "content": "Class name: surfing"},
]
ANSWER = {"content": "yes"}


def ask(client):
    return client.complete(MESSAGES, response_format=None)


class Pauses(threading.Event):
    """Writes down pauses in place of making them."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def wait(self, timeout=None):
        self.seconds.append(timeout)
        return False


def test_request_and_reply(fake_llm, make_client):
    fake_llm.plans["surfing"] = [ANSWER]
    form = {"type": "json_object"}
    reply = make_client().complete(MESSAGES, response_format=form)
    assert (reply.text, reply.complete, reply.input_tokens, reply.output_tokens) == ("yes", True, 100, 10)
    assert fake_llm.requests == [
        {"messages": MESSAGES, "model": "fake", "temperature": 0.0, "seed": 3, "max_tokens": 500}
        | {"response_format": form}
    ]
    assert fake_llm.authorizations == [f"Bearer {fake_llm.KEY}"]


def test_other_name_of_the_token_limit(fake_llm, make_client):
    fake_llm.plans["surfing"] = [ANSWER]
    ask(make_client(max_tokens_name="max_completion_tokens"))
    assert fake_llm.requests[0]["max_completion_tokens"] == 500
    assert not {"max_tokens", "response_format"} & set(fake_llm.requests[0])


@pytest.mark.parametrize(
    "trouble",
    [
        {"status": 429, "body": "{}", "headers": {"Retry-After": "0"}},
        {"status": 500, "body": "oops"},
        {"status": 503, "body": "<html>busy</html>", "headers": {"Content-Type": "text/html"}},
        {"status": 408, "body": "{}"},
        {"drop": True},
        {"body": "{"},
        {"body": "not JSON", "headers": {"Content-Type": "text/plain"}},
        {"body": "[" * 100_000},
        {"body": '{"choices": []}'},
        {"body": '{"choices": [{"message": null}]}'},
        {"body": '{"choices": {"0": 1}}'},
        {"body": "null"},
    ],
)
def test_trouble_that_passes(fake_llm, make_client, trouble):
    fake_llm.plans["surfing"] = [trouble, trouble, ANSWER]
    assert ask(make_client()).text == "yes"
    assert len(fake_llm.requests) == 3


def test_time_out(fake_llm, make_client):
    fake_llm.plans["surfing"] = [{"hang": True}, ANSWER]
    assert ask(make_client(timeout_seconds=0.2)).text == "yes"
    fake_llm.plans["surfing"] = [{"hang": True}]
    with pytest.raises(ServerFailureError, match=r"^no answer after 1 requests: no answer within 0\.2 s$"):
        ask(make_client(timeout_seconds=0.2, retries=0))


def test_retries_are_limited(fake_llm, make_client):
    fake_llm.plans["surfing"] = [{"status": 500, "body": "oops"}] * 9
    with pytest.raises(ServerFailureError, match="no answer after 3 requests: 500 oops"):
        ask(make_client())
    assert len(fake_llm.requests) == 3


def test_no_server():
    from slowfast.text.llm.client import Client, Patience, Sampling

    client = Client(
        Server(base_url="http://127.0.0.1:9/v1", api_key="none"),
        Sampling(model="fake", temperature=0.0, seed=0, max_tokens=1),
        patience=Patience(retries=1, backoff_seconds=0.0),
    )
    with pytest.raises(ServerFailureError, match="no answer after 2 requests: no connection"):
        ask(client)


def test_pauses_grow(fake_llm, make_client):
    fake_llm.plans["surfing"] = [{"status": 500, "body": ""}] * 9 + [ANSWER]
    pauses = Pauses()
    ask(make_client(retries=9, backoff_seconds=0.5, stop=pauses))
    assert pauses.seconds == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("1.5", 1.5), ("-3", 0.0), ("soon", 0.5), (formatdate(0, usegmt=True), 0.0)]
)
def test_retry_after(fake_llm, make_client, header, seconds):
    fake_llm.plans["surfing"] = [{"status": 429, "body": "{}", "headers": {"Retry-After": header}}, ANSWER]
    pauses = Pauses()
    ask(make_client(backoff_seconds=0.5, stop=pauses))
    assert pauses.seconds == [seconds]


def test_retry_after_a_date(fake_llm, make_client):
    date = formatdate(time.time() + 60, usegmt=True)
    fake_llm.plans["surfing"] = [{"status": 429, "body": "{}", "headers": {"Retry-After": date}}, ANSWER]
    pauses = Pauses()
    ask(make_client(stop=pauses))
    (pause,) = pauses.seconds
    assert 0 < pause <= 60


def test_too_long_a_pause_is_not_made(fake_llm, make_client):
    header = {"Retry-After": str(LONGEST_WAIT_SECONDS + 1)}
    fake_llm.plans["surfing"] = [{"status": 429, "body": "{}", "headers": header}]
    pauses = Pauses()
    with pytest.raises(ServerFailureError, match="no answer after 1 requests"):
        ask(make_client(stop=pauses))
    assert pauses.seconds == []


@pytest.mark.parametrize(
    ("status", "code"), [(400, None), (401, None), (403, None), (404, None), (422, None), (429, "insufficient_quota")]
)
def test_refusals_are_not_repeated(fake_llm, make_client, status, code):
    body = json.dumps({"error": {"message": f"no {fake_llm.KEY}\nat all", "code": code}})
    fake_llm.plans["surfing"] = [{"status": status, "body": body}]
    with pytest.raises(ServerRefusalError, match=rf"^the server refuses: {status} no \*\*\* at all$") as caught:
        ask(make_client())
    assert len(fake_llm.requests) == 1
    assert fake_llm.KEY not in str(caught.value)


def test_a_stopped_client_asks_nothing(fake_llm, make_client):
    client = make_client()
    client.stop.set()
    with pytest.raises(StoppedError):
        ask(client)
    assert fake_llm.requests == []


def test_answers_of_odd_content(fake_llm, make_client):
    client = make_client()
    fake_llm.usage = None
    for content, text in ((None, ""), ("\ud800 x", "? x"), (fake_llm.KEY, "***"), ("x" * 1_000_000, "x" * 1_000_000)):
        fake_llm.plans["surfing"] = [{"content": content}]
        reply = ask(client)
        assert reply.text == text
        assert (reply.input_tokens, reply.output_tokens) == (None, None)
    fake_llm.plans["surfing"] = [{"content": "{", "finish_reason": "length"}]
    assert not ask(client).complete


def test_verbose_log_has_no_secret(fake_llm, make_client, caplog):
    fake_llm.plans["surfing"] = [{"status": 500, "body": json.dumps({"error": {"message": fake_llm.KEY}})}, ANSWER]
    with caplog.at_level("DEBUG"):
        ask(make_client())
    assert "trying again in 0.0 s" in caplog.text
    assert fake_llm.KEY not in caplog.text


def test_secrets_are_not_shown():
    server = Server(base_url="http://user:long-password@host/v1", api_key="sk-0123456789")
    assert "sk-0123" not in repr(server)
    assert "long-password" not in repr(server)
    assert server.redact("sk-0123456789 long-password") == "*** ***"
    assert Server(base_url=None, api_key="x").redact("x marks the spot") == "x marks the spot"


def env(tmp_path, text=""):
    path = tmp_path / "env"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("environment", "text", "expected"),
    [
        ({"OPENAI_API_KEY": "a"}, "", (None, "a")),
        ({}, "OPENAI_API_KEY='b'\nOPENAI_API_BASE=http://b/v1\n", ("http://b/v1", "b")),
        ({"OPENAI_API_KEY": " a\n"}, "OPENAI_API_KEY=b", (None, "a")),
        ({"OPENAI_BASE_URL": "http://a/v1"}, "OPENAI_API_BASE=http://b/v1", ("http://a/v1", "none")),
        ({"OPENAI_BASE_URL": "http://a/v1", "OPENAI_API_BASE": "http://a/v1"}, "", ("http://a/v1", "none")),
        ({"OPENAI_API_BASE": "https://[::1]:8000/v1"}, "", ("https://[::1]:8000/v1", "none")),
    ],
)
def test_server_from_environment(tmp_path, environment, text, expected):
    server = server_from_environment(environment, env_file=env(tmp_path, text))
    assert (server.base_url, server.api_key) == expected


@pytest.mark.parametrize(
    ("environment", "text", "message"),
    [
        ({}, "", "OPENAI_API_KEY is not set, neither in the environment nor in "),
        ({"OPENAI_BASE_URL": "http://a/v1", "OPENAI_API_BASE": "http://b/v1"}, "", "name different servers"),
        ({}, "OPENAI_BASE_URL=http://a/v1\nOPENAI_API_BASE=http://b/v1", "name different servers"),
        ({"OPENAI_BASE_URL": "localhost:8000"}, "", "expected an address such as"),
        ({"OPENAI_BASE_URL": "http://localhost:x/v1"}, "", "expected an address such as"),
        ({"OPENAI_BASE_URL": "http:///v1"}, "", "expected an address such as"),
        ({"OPENAI_API_KEY": "sk-secret\nX: y"}, "", "OPENAI_API_KEY holds a character that no key has"),
        ({"OPENAI_API_KEY": "sk-secreté"}, "", "OPENAI_API_KEY holds a character that no key has"),
    ],
)
def test_bad_environment(tmp_path, environment, text, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        server_from_environment(environment, env_file=env(tmp_path, text))
    assert "secret" not in str(caught.value)


def test_the_file_of_keys_is_not_tracked():
    from pathlib import Path

    assert ".env" in (Path(__file__).resolve().parents[4] / ".gitignore").read_text().split()
