"""An asyncio loop in a thread: connections answer pings while the simulator steps, and every wait can be limited."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")

CLOSE_S = 10.0
"""How long `close` waits for the thread."""


class BackgroundLoop:
    """Runs coroutines for a caller that is not asynchronous."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="remote-policy", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """The result of `work`, which limits its own waits. An interrupt of the caller cancels it."""
        future: concurrent.futures.Future[ResultT] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # without effect on one that is done

    def close(self) -> None:
        """End the thread. A second call does nothing."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_S)
        if not self._thread.is_alive():
            self._loop.close()
