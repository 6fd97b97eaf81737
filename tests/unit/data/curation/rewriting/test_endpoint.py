from __future__ import annotations

import json
import socket

import pytest

from pokevla.data.curation.rewriting.endpoint import KEY_VARIABLE, Endpoint
from pokevla.errors import DataError, UsageError
from tests.unit.data.curation.rewriting.chat_server import chat_server

SECRET = "sk-very-secret"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


def test_replies_keep_the_order_of_the_requests() -> None:
    with chat_server(lambda text: f"reply to {text}") as chat:
        endpoint = Endpoint(chat.url, "tiny", temperature=0.5, seed=7)
        texts = [f"request {n}" for n in range(20)]
        assert endpoint.replies(texts, "Be brief.") == [f"reply to {text}" for text in texts]
        assert {(a["path"], a["model"], a["temperature"], a["seed"]) for a in chat.asked} == {
            ("/v1/chat/completions", "tiny", 0.5, 7)
        }
        assert chat.asked[0]["messages"][0] == {"role": "system", "content": "Be brief."}
        assert set(chat.keys) == {None}
        assert chat.url not in json.dumps(dict(endpoint.identity))


def test_the_key_goes_to_the_server_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, SECRET)
    caplog.set_level("DEBUG")
    with chat_server(lambda text: 401 if text == "b" else "yes") as chat:
        endpoint = Endpoint(chat.url, "tiny", attempts=2, pause_s=0.0)
        assert endpoint.replies(["a"], "s") == ["yes"]
        with pytest.raises(DataError, match="HTTP 401") as caught:
            endpoint.replies(["b"], "s")
    assert set(chat.keys) == {f"Bearer {SECRET}"}
    shown = [str(caught.value), repr(endpoint), json.dumps(dict(endpoint.identity)), caplog.text, *capfd.readouterr()]
    assert [text for text in shown if SECRET in text] == []


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_passing_failures_are_retried(status: int) -> None:
    answers = iter([status, b"no json", b'{"choices": []}', "at last"])
    with chat_server(lambda _: next(answers), headers={"Retry-After": "0"}) as chat:
        assert Endpoint(chat.url, "tiny", pause_s=0.01).replies(["a"], "s") == ["at last"]
        assert len(chat.asked) == 4


def test_a_server_that_keeps_failing_gives_no_answer() -> None:
    with chat_server(lambda _: 500) as chat:
        assert Endpoint(chat.url, "tiny", attempts=3, pause_s=0.01).replies(["a", "b"], "s") == [None, None]
        assert len(chat.asked) == 6


def test_a_request_that_is_refused_is_not_repeated() -> None:
    with chat_server(lambda text: 400 if text == "a" else "yes") as chat:
        assert Endpoint(chat.url, "tiny", pause_s=0.01).replies(["a", "b"], "s") == [None, "yes"]
        assert len(chat.asked) == 2


@pytest.mark.parametrize("status", [403, 404])
def test_a_wrong_name_or_key_ends_at_once(status: int) -> None:
    with chat_server(lambda _: status) as chat, pytest.raises(DataError, match=f"'tiny' .HTTP {status}"):
        Endpoint(chat.url, "tiny").replies(["a"], "s")
    assert len(chat.asked) == 1


def test_a_server_that_drips_is_given_up() -> None:
    with chat_server(lambda _: "x" * 2000, delay_s=0.01) as chat:
        # Each byte comes in time and the whole would be a reply, had it been waited for.
        assert Endpoint(chat.url, "tiny", timeout_s=0.5, attempts=1).replies(["a"], "s") == [None]


def test_a_redirect_and_an_endless_reply_are_no_answer() -> None:
    with chat_server(lambda _: 307, headers={"Location": "http://127.0.0.1:1/v1"}) as chat:
        assert Endpoint(chat.url, "tiny", attempts=1).replies(["a"], "s") == [None]
    with chat_server(lambda _: "x" * 3_000_000) as chat:
        assert Endpoint(chat.url, "tiny", attempts=1).replies(["a"], "s") == [None]


def test_no_server_is_no_answer() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        assert Endpoint(url, "tiny", attempts=2, pause_s=0.01).replies(["a"], "s") == [None]


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000", "file:///etc/passwd", "http://", "http://user:word@host/v1", "http://host/v1?key=word",
            "http://host:port/v1", "http://[::1/v1"],
)  # fmt: skip
def test_urls_that_are_none_or_hold_a_secret_are_refused(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Endpoint(url, "tiny")
    assert "word" not in str(caught.value).replace("password", "")


def test_a_key_does_not_travel_unencrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    Endpoint("http://gpu-node:8000/v1", "tiny")
    monkeypatch.setenv(KEY_VARIABLE, SECRET)
    Endpoint("https://gpu-node/v1", "tiny")
    Endpoint("http://localhost:8000/v1", "tiny")
    with pytest.raises(UsageError, match="unencrypted") as caught:
        Endpoint("http://gpu-node:8000/v1", "tiny")
    assert SECRET not in str(caught.value)
    monkeypatch.setenv(KEY_VARIABLE, "two\nlines")
    with pytest.raises(UsageError, match="HTTP header"):
        Endpoint("http://localhost:8000/v1", "tiny")
