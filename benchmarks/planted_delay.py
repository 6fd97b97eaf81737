"""A proxy on loopback that delays, breaks or cuts off the answers of a server behind it."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

_HEADER_END = b"\r\n\r\n"


@dataclass
class Fault:
    """What happens to one request."""

    status: int | None = None  # answered with this instead, and `body`
    body: bytes = b""
    keep: int | None = None  # bytes of the body of the answer, after which the connection ends
    wait_s: float = 0.0


@dataclass
class Proxy:
    """Forwards HTTP requests to 127.0.0.1:`target`, one connection for each. Use it as a context manager.

    `fault` is called with the request line and headers of each request, and returns what to do to it, or None.
    """

    target: int
    delay_s: float = 0.0
    """Added to every request."""
    fault: Callable[[str], Fault | None] = lambda _: None
    requests: list[str] = field(default_factory=list)
    """The request line and headers of every request so far."""
    port: int = 0

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait(10.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def count(self, word: str) -> int:
        """How many requests so far hold `word`."""
        return sum(word in request for request in self.requests)

    def _run(self, started: threading.Event) -> None:
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(_HEADER_END)).decode("latin-1")
            self.requests.append(head)
            fault = self.fault(head) or Fault()
            await asyncio.sleep(self.delay_s + fault.wait_s)
            if fault.status is not None:
                text = (
                    f"HTTP/1.1 {fault.status} Planted\r\nContent-Length: {len(fault.body)}\r\nConnection: close\r\n\r\n"
                )
                writer.write(text.encode() + fault.body)
            else:
                await self._forward(head, reader, writer, fault.keep)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # one side has gone, or the proxy ends
        finally:
            writer.close()

    async def _forward(
        self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keep: int | None
    ) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target, limit=1 << 22)
        try:
            lines = [line for line in head.split("\r\n") if not line.lower().startswith("connection:")]
            back.write("\r\n".join([*lines[:-2], "Connection: close", "", ""]).encode("latin-1"))
            back.write(await reader.readexactly(_content_length(lines)))
            answer = (await there.readuntil(_HEADER_END)).decode("latin-1")
            kept = [line for line in answer.split("\r\n") if not line.lower().startswith("connection:")]
            writer.write("\r\n".join([*kept[:-2], "Connection: close", "", ""]).encode("latin-1"))
            left = 0 if head.startswith("HEAD") else _content_length(kept)
            left = left if keep is None else min(left, keep)
            while left > 0 and (chunk := await there.read(min(left, 1 << 18))):
                writer.write(chunk)
                await writer.drain()
                left -= len(chunk)
        finally:
            back.close()


def _content_length(lines: list[str]) -> int:
    return next((int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:")), 0)


if __name__ == "__main__":  # planted_delay.py PORT SECONDS: prints its port
    with Proxy(int(sys.argv[1]), delay_s=float(sys.argv[2])) as proxy:
        print(proxy.port, flush=True)
        while True:
            time.sleep(3600.0)
