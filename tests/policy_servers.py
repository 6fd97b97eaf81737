"""Policy servers for tests, on loopback: openpi's exchange with openpi's own codec, and servers that misbehave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from tests.openpi_package import msgpack_numpy


@contextmanager
def running(handler: Callable[[ServerConnection], None]) -> Iterator[str]:
    """A websocket server that gives each connection to `handler`; yields its url."""

    def answer(connection: ServerConnection) -> None:
        try:
            handler(connection)
        except (ConnectionClosed, OSError):
            return  # the client has left

    with serve(answer, "127.0.0.1", 0, compression=None, max_size=None, close_timeout=1) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def openpi_server(infer: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[str]:
    """A policy behind the exchange of openpi's `WebsocketPolicyServer`: metadata first, then one answer per
    observation, or the traceback as text."""

    def handler(connection: ServerConnection) -> None:
        packer = msgpack_numpy.Packer()
        connection.send(packer.pack({"name": "toy"}))
        while True:
            observation = msgpack_numpy.unpackb(connection.recv())
            try:
                answer = infer(observation)
            except ValueError as error:
                connection.send(f"Traceback (most recent call last):\n  ...\nValueError: {error}\n")
                connection.close(1011, "Internal server error. Traceback included in previous frame.")
                return
            connection.send(packer.pack({**answer, "server_timing": {"infer_ms": 1.0}}))

    with running(handler) as url:
        yield url
