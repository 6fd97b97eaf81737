"""A language model behind an HTTP server with OpenAI's chat interface: vLLM, llama.cpp, Ollama, or a hosted one.

The request is `POST URL/chat/completions` (github.com/openai/openai-openapi, /chat/completions).
"""

from __future__ import annotations

import ipaddress
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pokevla.errors import DataError, UsageError

KEY_VARIABLE = "POKEVLA_REWRITE_API_KEY"
"""Environment variable with the key, which is sent to the endpoint and appears nowhere else."""
_IN_FLIGHT = 8
_MAX_TOKENS = 512
_MAX_REPLY_BYTES = 1 << 20
_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_FATAL = frozenset({401, 403, 404})


@dataclass(frozen=True)
class Endpoint:
    """A model of a server."""

    url: str
    """Up to and including `/v1`."""
    model: str
    temperature: float = 0.0
    seed: int = 0
    timeout_s: float = 60.0
    """For one whole reply."""
    attempts: int = 4
    pause_s: float = 1.0
    """Before the second attempt; doubled before each further one. At most 30 s, also if the server asks for more."""

    def __post_init__(self) -> None:
        """Raises UsageError: the URL is not one, holds a password, or would carry the key unencrypted."""
        try:
            parts = urlsplit(self.url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise UsageError("The URL of the endpoint cannot be read.", _URL) from None
        if parts.scheme not in ("http", "https") or not host:
            raise UsageError("The URL of the endpoint does not begin with http:// or https://.", _URL)
        if parts.username or parts.password or parts.query or parts.fragment:
            raise UsageError(
                "The URL of the endpoint holds a user, a query or a fragment.", f"Put the key into {KEY_VARIABLE}."
            )
        if parts.scheme == "http" and not _is_loopback(host) and os.environ.get(KEY_VARIABLE):
            raise UsageError(
                f"{self.url} would carry the key of {KEY_VARIABLE} unencrypted.", "Use https://, or unset the variable."
            )
        key = os.environ.get(KEY_VARIABLE, "")
        if not key.isascii() or not key.isprintable():
            raise UsageError(f"{KEY_VARIABLE} holds what no HTTP header can.", "Set it again, without a line break.")

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's name and how tokens are chosen. Not the URL: the same model may be served elsewhere."""
        return {"name": self.model, "temperature": self.temperature, "seed": self.seed}

    def replies(self, requests: Sequence[str], system: str) -> list[str | None]:
        """One reply to each request, up to 8 of them at a time.

        Raises DataError: the server does not know the model, or refuses the key.
        """
        import httpx2

        key = os.environ.get(KEY_VARIABLE)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        host = urlsplit(self.url).hostname or ""
        with (
            httpx2.Client(
                headers=headers, timeout=self.timeout_s, follow_redirects=False, trust_env=not _is_loopback(host)
            ) as client,
            ThreadPoolExecutor(_IN_FLIGHT) as threads,
        ):
            futures = [threads.submit(self._reply, client, request, system) for request in requests]
            try:
                return [future.result() for future in futures]
            finally:
                threads.shutdown(wait=True, cancel_futures=True)

    def _reply(self, client: Any, request: str, system: str) -> str | None:
        import httpx2

        turns = [{"role": "system", "content": system}, {"role": "user", "content": request}]
        content = {
            "model": self.model,
            "messages": turns,
            "temperature": self.temperature,
            "seed": self.seed,
            "max_tokens": _MAX_TOKENS,
            "n": 1,
            "stream": False,
        }
        for attempt in range(self.attempts):
            asked_to_wait = 0.0
            try:
                status, headers, body = self._post(client, content)
            except (httpx2.HTTPError, _TooLong):
                status, body = 0, b""
            else:
                asked_to_wait = _seconds(headers.get("retry-after"))
            if status == 200:
                reply = _text(body)
                if reply is not None:
                    return reply
            elif status in _FATAL:
                raise DataError(
                    f"{self.url} refuses the model {self.model!r} (HTTP {status}).",
                    f"Check the URL (it ends in /v1), the model's name, and the key in {KEY_VARIABLE}.",
                )
            elif status and status not in _RETRIED:
                return None
            if attempt + 1 < self.attempts:
                time.sleep(min(max(self.pause_s * 2**attempt, asked_to_wait), 30.0))
        return None

    def _post(self, client: Any, content: dict[str, Any]) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body. Raises _TooLong: the body is too large, or does not end in time."""
        deadline, body = time.monotonic() + self.timeout_s, bytearray()
        with client.stream("POST", f"{self.url.rstrip('/')}/chat/completions", json=content) as response:
            for block in response.iter_bytes():
                body += block
                if len(body) > _MAX_REPLY_BYTES or time.monotonic() > deadline:
                    raise _TooLong
            return response.status_code, response.headers, bytes(body)


class _TooLong(Exception):
    """A reply is too large, or takes too long."""


_URL = "Write it like http://127.0.0.1:8000/v1."


def _text(body: bytes) -> str | None:
    try:
        text = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return None
    return text if isinstance(text, str) else None


def _seconds(value: str | None) -> float:
    return float(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 6 else 0.0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
