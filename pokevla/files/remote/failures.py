"""What went wrong with a request, in words, and whether another attempt may help.

Nothing of a library's own text goes into a message without `redacted`: it may hold a signed URL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, NamedTuple

from pokevla.files.remote.urls import redacted

CREDENTIALS = (
    "Set the credentials anew: AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3, "
    "GOOGLE_APPLICATION_CREDENTIALS for gs. Nothing of them belongs into a recipe."
)
NETWORK = "Check the network of this machine, and the address (AWS_ENDPOINT_URL for a store of your own)."
NAME = "Check the URL: bucket, folder and file."
LATER = "Try again later; data.storage.attempts and data.storage.timeout_s allow more."
_TRANSIENT_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_NO_CREDENTIALS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "ProfileNotFound"}
)
_CUT_OFF = frozenset({"ClientPayloadError", "ResponseStreamingError", "IncompleteReadError", "ServerDisconnectedError"})
_EXPIRED = ("ExpiredToken", "TokenRefreshRequired", "RequestExpired", "expired")
_UNREACHABLE = ("EndpointConnectionError", "ConnectTimeoutError", "ClientConnectorError", "ClientConnectorDNSError")


class StoreError(OSError):
    """A request that failed for good. `strerror` says why, without credentials; `remedy` what to do."""

    def __init__(self, problem: str, remedy: str, *, attempts: int = 1, is_missing: bool = False) -> None:
        """`problem`: completes "... cannot be read (problem)". `is_missing`: there is no such file or bucket."""
        times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        super().__init__(0, f"{problem}; {times}")
        self.remedy, self.attempts, self.is_missing = remedy, attempts, is_missing


class ShortAnswer(OSError):
    """An answer has fewer bytes than were asked for."""


class Failure(NamedTuple):
    """Why an attempt failed."""

    problem: str
    remedy: str
    is_transient: bool
    is_missing: bool = False


def diagnose(error: BaseException, timeout_s: float) -> Failure:
    """The cause of a failed attempt, from the exceptions of aiohttp, botocore, s3fs and gcsfs."""
    chain = list(_causes(error))
    names = {base.__name__ for each in chain for base in type(each).__mro__}
    text = " ".join(str(each) for each in chain)
    status, code = _status(chain)
    if names & _CUT_OFF:
        return Failure("the answer ends early", LATER, True)
    if names & _NO_CREDENTIALS:
        return Failure("there are no credentials", CREDENTIALS, False)
    if any(word in text for word in _EXPIRED):
        return Failure("the credentials have expired", CREDENTIALS, False)
    if "NoSuchBucket" in text or "bucket does not exist" in text:
        return Failure("there is no such bucket", NAME, False, is_missing=True)
    if isinstance(error, PermissionError) or status in (401, 403):
        return Failure(f"access is denied{_named(status, code)}", CREDENTIALS, False)
    if isinstance(error, FileNotFoundError) or status == 404:
        return Failure("there is no such file", NAME, False, is_missing=True)
    if isinstance(error, TimeoutError | asyncio.TimeoutError) or "FSTimeoutError" in names:
        return Failure(f"no answer within {timeout_s:g} s", LATER, True)
    if status is not None:
        return Failure(f"the server answers HTTP {status}{_named(None, code)}", LATER, status in _TRANSIENT_STATUS)
    if names & set(_UNREACHABLE):
        return Failure("the server cannot be reached", NETWORK, True)
    kind = type(error).__name__
    detail = redacted(str(error)).replace("\n", " ")[:200]
    is_transient = isinstance(error, OSError) or "ClientError" in names or "HTTPClientError" in names
    return Failure(f"{kind}: {detail}" if not isinstance(error, ShortAnswer) else detail, LATER, is_transient)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it was raised from."""
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__


def _status(chain: list[BaseException]) -> tuple[int | None, str]:
    """(HTTP status, name of the error) as far as an exception tells."""
    for each in chain:
        response: Any = getattr(each, "response", None)
        if isinstance(response, dict):  # botocore
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status, str(response.get("Error", {}).get("Code", ""))
        is_answer = {base.__name__ for base in type(each).__mro__} & {"ClientResponseError", "HttpError"}
        status = getattr(each, "status", None) or getattr(each, "code", None) if is_answer else None  # aiohttp; gcsfs
        if isinstance(status, int) and 100 <= status < 600:
            return status, ""
    return None, ""


def _named(status: int | None, code: str) -> str:
    words = [f"HTTP {status}"] if status is not None else []
    words += [code] if code.isalnum() else []
    return f" ({', '.join(words)})" if words else ""
