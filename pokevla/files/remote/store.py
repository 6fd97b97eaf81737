"""Requests to an object store or web server: ranges of files, retried, with a bound on the bytes under way.

fsspec's file systems (s3fs, gcsfs, aiohttp) work on an event loop in a thread of their own, which does not survive a
fork. So they are opened when a process first needs them, and again in a forked one.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from pokevla.errors import EnvironmentSetupError
from pokevla.files.remote.failures import NAME, ShortAnswer, StoreError, diagnose
from pokevla.files.remote.settings import MIB, StorageSettings
from pokevla.files.remote.urls import UrlPath

T = TypeVar("T")
CHUNK_BYTES = 8 * MIB
"""Size of the requests that copy a whole file."""
_CHUNKS_AHEAD = 4
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0
"""Pauses between attempts: a random time of up to 0.2 s, then of up to twice that, and so on, to 10 s (ours, after
"Exponential Backoff And Jitter", AWS Architecture Blog: full jitter)."""
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}


class StoredInfo(NamedTuple):
    """What a store says about a file."""

    size: int  # bytes
    version: str
    """Changes when the file changes: ETag, or the time of its last change."""


class ByteBudget:
    """Bounds the bytes that are under way, for the tasks of one event loop."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._changed = asyncio.Condition()
        self.most = 0
        """Most bytes that were under way at a time."""

    async def take(self, count: int) -> int:
        """Wait for room. Returns what has to be given back: a request of more than the limit goes alone."""
        count = min(count, self._limit)
        async with self._changed:
            await self._changed.wait_for(lambda: self._used + count <= self._limit)
            self._used += count
            self.most = max(self.most, self._used)
        return count

    async def give_back(self, count: int) -> None:
        """The answer is here."""
        async with self._changed:
            self._used -= count
            self._changed.notify_all()


@dataclass
class _Opened:
    """What belongs to one process."""

    pid: int
    budget: ByteBudget
    systems: dict[str, Any] = field(default_factory=dict)  # by scheme


class Store:
    """Reads files by their URL. Thread-safe, and usable on both sides of a fork."""

    def __init__(self, settings: StorageSettings) -> None:
        """Connects to nothing."""
        self._settings = settings
        self._lock = threading.Lock()
        self._opened: _Opened | None = None

    def info(self, url: UrlPath) -> StoredInfo:
        """Size and version of a file, in one small request. Raises StoreError."""
        system = self._system(url)

        async def ask() -> StoredInfo:
            found = await system._info(_path(url))
            if found.get("type") == "directory":
                raise FileNotFoundError(str(url))
            version = next((str(found[key]) for key in _VERSIONS if found.get(key)), "")
            return StoredInfo(int(found.get("size") or 0), version)

        return self._wait(self._submit(system, lambda: self._attempted(ask)))

    def read(self, url: UrlPath, start: int, end: int) -> bytes:
        """Bytes `start` to `end` of a file. Raises StoreError."""
        return self.result(self.start(url, start, end))

    def start(self, url: UrlPath, start: int, end: int) -> Future[bytes]:
        """Begin to read bytes `start` to `end`. `result` waits for them."""
        system = self._system(url)
        budget = self._state().budget

        async def ask() -> bytes:
            answer: bytes = await system._cat_file(_path(url), start=start, end=end)
            if len(answer) < end - start:
                raise ShortAnswer(f"the answer has {len(answer)} of {end - start} B")
            if len(answer) > end - start:
                raise StoreError("the server ignores ranges and sends whole files", "Use another server.")
            return answer

        async def within_budget() -> bytes:
            taken = await budget.take(end - start)
            try:
                return await self._attempted(ask)
            finally:
                await budget.give_back(taken)

        if end <= start:
            done: Future[bytes] = Future()
            done.set_result(b"")
            return done
        return self._submit(system, within_budget)

    def result(self, future: Future[bytes]) -> bytes:
        """The answer to a request. Raises StoreError."""
        return self._wait(future)

    def chunks(self, url: UrlPath, size: int) -> Iterator[bytes]:
        """The content of a file of `size` bytes in order, with some requests ahead. Raises StoreError."""
        ranges = [(start, min(start + CHUNK_BYTES, size)) for start in range(0, size, CHUNK_BYTES)]
        waiting: list[Future[bytes]] = []
        try:
            for number in range(len(ranges)):
                while len(waiting) < _CHUNKS_AHEAD and number + len(waiting) < len(ranges):
                    waiting.append(self.start(url, *ranges[number + len(waiting)]))
                yield self.result(waiting.pop(0))
        finally:
            for future in waiting:
                future.cancel()

    @property
    def most_in_flight(self) -> int:
        """Most bytes that were under way at a time in this process."""
        return self._state().budget.most

    async def _attempted(self, ask: Callable[[], Awaitable[T]]) -> T:
        chance = random.Random()  # not the generator of the training
        attempt, pause = 1, _FIRST_PAUSE_S
        while True:
            try:
                return await asyncio.wait_for(ask(), self._settings.timeout_s)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 (each library has its own)
                failure = diagnose(error, self._settings.timeout_s)
            if not failure.is_transient or attempt >= self._settings.attempts:
                # Without the cause: its text may hold a signed URL.
                raise StoreError(
                    failure.problem, failure.remedy, attempts=attempt, is_missing=failure.is_missing
                ) from None
            await asyncio.sleep(chance.uniform(0.0, pause))
            attempt, pause = attempt + 1, min(2 * pause, _LONGEST_PAUSE_S)

    def _submit(self, system: Any, work: Callable[[], Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work(), system.loop)

    def _wait(self, future: Future[T]) -> T:
        """The result. Every attempt is bounded in time, so this ends unless the thread of the loop is dead."""
        from fsspec.asyn import iothread

        while True:
            try:
                return future.result(timeout=5.0)
            except TimeoutError:
                if future.done():
                    return future.result()
                if iothread[0] is None or not iothread[0].is_alive():
                    raise StoreError("the thread of requests has ended", "Start the job again.") from None

    def _state(self) -> _Opened:
        opened = self._opened
        if opened is None or opened.pid != os.getpid():
            opened = self._opened = _Opened(os.getpid(), ByteBudget(self._settings.bytes_in_flight))
        return opened

    def _system(self, url: UrlPath) -> Any:
        scheme = str(url).partition(":")[0]
        opened = self._opened
        if opened is None or opened.pid != os.getpid():
            self._lock = self._lock if opened is None else threading.Lock()  # a lock of the parent may be held for ever
        with self._lock:
            state = self._state()
            if scheme not in state.systems:
                state.systems[scheme] = _open_system(scheme, self._settings)
            return state.systems[scheme]


_VERSIONS = ("ETag", "etag", "generation", "LastModified", "mtime", "Last-Modified", "updated")


def _path(url: UrlPath) -> str:
    return str(url)


def _open_system(scheme: str, settings: StorageSettings) -> Any:
    """A file system of fsspec, without retries and caches of its own."""
    options: dict[str, Any] = {}
    if scheme == "s3":
        # The pool is what bounds concurrent requests beside the bytes.
        options["config_kwargs"] = {
            "retries": {"max_attempts": 0},
            "connect_timeout": settings.timeout_s,
            "read_timeout": settings.timeout_s,
            "max_pool_connections": 64,
        }
    try:
        import fsspec

        system = fsspec.filesystem(scheme, use_listings_cache=False, **options)
    except (ImportError, ValueError) as error:
        raise EnvironmentSetupError(
            f"Reading {scheme}:// needs the package {_PACKAGES[scheme]}, which cannot be imported ({error}).",
            f"Install it: pip install -c constraints.txt 'pokevla[{'gcs' if scheme == 'gs' else 'objects'}]'",
        ) from error
    except Exception as error:  # noqa: BLE001 (each library has its own)
        raise diagnose_opening(scheme, error) from None
    if scheme == "s3":
        system.retries = 1  # attempts of s3fs itself
    return system


def diagnose_opening(scheme: str, error: Exception) -> StoreError:
    """Why the client of a store cannot be made: credentials that do not parse, for example."""
    failure = diagnose(error, 0.0)
    return StoreError(f"the client for {scheme}:// cannot be made: {failure.problem}", failure.remedy or NAME)
