"""One websocket connection to a policy server, with a limit for every wait and for every message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from pokevla.errors import PolicyServerError, ProtocolError
from pokevla.wire.checks import MAX_BYTES

CLOSE_S = 2.0
_TOO_BIG, _NO_FRAME = 1009, 1002
"""Codes with which our side closes: RFC 6455, section 7.4.1."""


@dataclass(frozen=True)
class ServerAddress:
    """Where a policy server is, and how long it may take."""

    name: str
    """The policy's name in messages."""
    url: str
    """ws://host:port"""
    timeout_s: float
    """For the connection, and for each answer."""
    max_bytes: int = MAX_BYTES
    """Largest message that is read."""

    @property
    def text(self) -> str:
        """The server in an error message."""
        return f"The server of policy {self.name} at {self.url}"


class ServerConnection:
    """An open connection. Use `open_connection`."""

    def __init__(self, address: ServerAddress, socket: ClientConnection) -> None:
        self.address = address
        self._socket = socket

    async def send(self, message: bytes) -> None:
        """Send one message. Raises PolicyServerError if the server has closed or does not take it in time."""
        with _named(self.address, "did not take an observation"):
            async with asyncio.timeout(self.address.timeout_s):
                await self._socket.send(message)

    async def receive(self) -> bytes:
        """The next message.

        Raises:
            PolicyServerError: it does not come in time, is too big or no message, or the server closes. A text frame is
                the server's own error.
        """
        with _named(self.address, "did not answer"):
            async with asyncio.timeout(self.address.timeout_s):
                message = await self._socket.recv()
        if isinstance(message, str):
            lines = message.strip().splitlines() or ["an empty text"]
            raise PolicyServerError(
                f"{self.address.text} reported an error: {lines[-1][:500]}", "Look at the server's own output."
            )
        return message

    async def close(self) -> None:
        """Close, after `CLOSE_S` without the server's consent."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._socket.close()
        except TimeoutError:  # a server that reads nothing never learns that we leave
            self._socket.transport.abort()


async def open_connection(address: ServerAddress) -> ServerConnection:
    """Connect. No compression, as openpi and vla-eval do; no proxy, so that nothing leaves for loopback addresses.

    Raises:
        PolicyServerError: nobody listens there, it does not speak websocket, or it does not answer in time.
    """
    with _named(address, "did not complete the connection"):
        socket = await connect(
            address.url,
            compression=None,
            max_size=address.max_bytes,
            open_timeout=address.timeout_s,
            close_timeout=CLOSE_S,
            max_queue=1,
            ping_interval=None,  # a server that compiles its model answers no ping
            proxy=None,
        )
    return ServerConnection(address, socket)


@asynccontextmanager
async def closed_on_error(connection: ServerConnection) -> AsyncIterator[None]:
    """Close the connection if the block fails. Otherwise a late answer would be taken for that to the next question."""
    try:
        yield
    except BaseException:
        await connection.close()
        raise


@contextmanager
def reading(address: ServerAddress) -> Iterator[None]:
    """Name the server in an error about what it sent."""
    try:
        yield
    except ProtocolError as error:
        raise PolicyServerError(
            f"{address.text} sent what cannot be used: {error.message}",
            "Check that it is a server of this protocol and of a policy for this robot.",
        ) from error


@contextmanager
def _named(address: ServerAddress, late: str) -> Iterator[None]:
    """Turn the errors of a connection into one that names the server. `late`: what it did not do in time."""
    try:
        yield
    except TimeoutError as error:
        raise PolicyServerError(
            f"{address.text} {late} within {address.timeout_s:g} s.",
            "Look at the server; raise timeout_s of the policy if it only needs longer.",
        ) from error
    except ConnectionClosed as error:
        raise PolicyServerError(
            f"{address.text} {_closing(address, error)}.",
            "Look at the server's own output. Finished trials are kept; run the evaluation again to continue.",
        ) from error
    except (InvalidHandshake, InvalidURI) as error:
        raise PolicyServerError(f"{address.text} is no websocket server ({error}).", "Check the url.") from error
    except OSError as error:
        raise PolicyServerError(
            f"{address.text} cannot be reached ({error.strerror or error}).", "Start it, or correct the url."
        ) from error


def _closing(address: ServerAddress, error: ConnectionClosed) -> str:
    if error.sent is not None and error.sent.code == _TOO_BIG:
        return f"sent a message of more than {address.max_bytes} bytes"
    if error.sent is not None and error.sent.code == _NO_FRAME:
        return "sent bytes that are no websocket message"
    if error.sent is not None and not error.rcvd_then_sent:
        return "is not asked again after an earlier error"
    reason = error.rcvd.reason if error.rcvd is not None else ""
    code = f" (code {error.rcvd.code}{f': {reason[:200]}' if reason else ''})" if error.rcvd is not None else ""
    return f"closed the connection{code}"
