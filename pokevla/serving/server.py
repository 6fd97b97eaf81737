"""A policy behind a websocket, for clients of openpi and vla-eval."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from pokevla.errors import EnvironmentSetupError
from pokevla.policy.acting import ActingPolicy
from pokevla.serving.openpi import serve_openpi
from pokevla.serving.policy_desk import PolicyDesk
from pokevla.serving.vla_eval import serve_vla_eval
from pokevla.wire.checks import MAX_BYTES

Protocol = Literal["openpi", "vla-eval"]
LOOPBACK = "127.0.0.1"
MAX_CLIENTS = 64
"""Connections at a time. Others are refused with 503."""
CLOSE_S = 2.0
_HEALTH = {"/healthz": "OK\n", "/health": '{"status": "ok"}\n'}
"""Answers to the health checks of openpi and vla-eval."""


@dataclass(frozen=True)
class PolicyServer:
    """Serves one policy. Listens on the loopback interface unless told otherwise, because the protocols know no
    passwords: whoever reaches the port may ask. Requests of web pages are refused."""

    policy: ActingPolicy
    protocol: Protocol
    actions_per_query: int = 8
    """With vla-eval, actions of a chunk that are executed before the policy is asked again. openpi's clients choose."""
    host: str = LOOPBACK
    port: int = 0
    """0: any free port."""
    max_bytes: int = MAX_BYTES
    """Largest message that is read."""

    def serve_forever(self, on_start: Callable[[str], None]) -> None:
        """Serve until SIGTERM or SIGINT; returns then. `on_start` gets the server's url as soon as it listens.

        Raises:
            EnvironmentSetupError: the port is taken, or the address is not one of this machine.
        """
        asyncio.run(self._until_signal(on_start))

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve in a thread while the block runs. Yields the url. Raises the errors of `serve_forever`."""
        urls: list[str] = []
        failures: list[BaseException] = []
        ready, stops = threading.Event(), list[Callable[[], object]]()

        async def work() -> None:
            stop, loop = asyncio.Event(), asyncio.get_running_loop()
            stops.append(lambda: loop.call_soon_threadsafe(stop.set))

            def on_start(url: str) -> None:
                urls.append(url)
                ready.set()

            await self._serve(stop, on_start)

        def run() -> None:
            try:
                asyncio.run(work())
            except BaseException as error:  # noqa: BLE001  raised in the caller's thread
                failures.append(error)
            ready.set()

        thread = threading.Thread(target=run, name="policy-server", daemon=True)
        thread.start()
        ready.wait()
        if failures:
            raise failures[0]
        try:
            yield urls[0]
        finally:
            stops[0]()
            thread.join()

    async def _until_signal(self, on_start: Callable[[str], None]) -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await self._serve(stop, on_start)

    async def _serve(self, stop: asyncio.Event, on_start: Callable[[str], None]) -> None:
        desk, clients = PolicyDesk(self.policy), set[ServerConnection]()

        async def answer(socket: ServerConnection) -> None:
            clients.add(socket)
            try:
                with contextlib.suppress(ConnectionClosed):
                    if self.protocol == "openpi":
                        await serve_openpi(socket, desk)
                    else:
                        await serve_vla_eval(socket, desk, self.actions_per_query)
            finally:
                clients.discard(socket)

        def before(socket: ServerConnection, request: Request) -> Response | None:
            if request.path in _HEALTH:
                return socket.respond(HTTPStatus.OK, _HEALTH[request.path])
            if len(clients) >= MAX_CLIENTS:
                return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, f"{MAX_CLIENTS} clients are connected\n")
            return None

        try:
            server = await serve(
                answer,
                self.host,
                self.port,
                process_request=before,
                origins=[None],  # only browsers send an origin
                compression=None,
                max_size=self.max_bytes,
                max_queue=1,
                ping_timeout=None,  # a client that resets a simulator answers no ping
                close_timeout=CLOSE_S,
            )
        except OSError as error:
            raise EnvironmentSetupError(
                f"The server cannot listen on {self.host}:{self.port} ({error.strerror or error}).",
                "Choose another port, or 0 for any free one.",
            ) from error
        try:
            async with server:
                host, port = next(iter(server.sockets)).getsockname()[:2]
                on_start(f"ws://{f'[{host}]' if ':' in host else host}:{port}")
                await stop.wait()
        finally:
            desk.close()
