"""A bounded cache of results that are used again and again, such as encoded instructions."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class RecentResults(Generic[KeyT, ValueT]):
    """Keeps the `limit` results that were asked for last. Thread-safe; two threads that ask for the same new key at the
    same moment may both compute it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._results: OrderedDict[KeyT, ValueT] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: KeyT, compute: Callable[[], ValueT]) -> ValueT:
        """The result for `key`, computed if it is not kept."""
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]
        result = compute()
        with self._lock:
            self._results[key] = result
            self._results.move_to_end(key)
            while len(self._results) > self._limit:
                self._results.popitem(last=False)
        return result

    def __len__(self) -> int:
        return len(self._results)
