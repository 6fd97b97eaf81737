"""What a loader does while the model computes, and why the model waits for it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pokevla.data.batch import Skipped
from pokevla.shards.reading import NO_READ, Slowest

logger = logging.getLogger(__name__)

WAITING = 0.05
"""Share of a step's time waiting for data from which the log says what to do (ours)."""
_BUSY = 0.6
"""Share of CPU time in the time of making a batch from which making it is limited by the CPU (ours)."""


class Effort(NamedTuple):
    """What one batch took."""

    seconds: float
    cpu_s: float
    num_bytes: int
    slowest: Slowest = NO_READ
    """The slowest read since the last batch of the process."""


@dataclass
class LoadMeter:
    """Counts batches between two lines of metrics.

    `take()` gives `data_ahead`, the batches that were ready when one was asked for (mean); `data_mib_per_s`, their
    bytes; `data_cpu_share`, the share of CPU time in the time of making a batch: the rest is waiting for files or for a
    core; and `data_slowest_read_s`, the seconds of the slowest read of a shard, which `slowest` names.
    `take_skipped()` gives the damaged samples that were replaced.
    """

    clock: Callable[[], float] = time.perf_counter
    slowest: Slowest = field(init=False, default=NO_READ)
    """The slowest read of the interval that `take` has ended."""
    _started: float = field(init=False)
    _slowest: Slowest = field(init=False, default=NO_READ)
    _batches: int = field(init=False, default=0)
    _ahead: int = field(init=False, default=0)
    _total: Effort = field(init=False, default=Effort(0.0, 0.0, 0))
    _skipped: Counter[str] = field(init=False, default_factory=Counter)
    _named: set[str] = field(init=False, default_factory=set)  # shards that the log has named

    def __post_init__(self) -> None:
        self._started = self.clock()

    def add(self, ahead: int, effort: Effort, skipped: Iterable[Skipped] = ()) -> None:
        """Count a batch that was handed out when `ahead` were ready, and the damaged samples that were replaced in it.
        The first one of each shard is logged."""
        for each in skipped:
            self._skipped[each.shard] += 1
            if each.reason is not None and each.shard not in self._named:
                self._named.add(each.shard)
                logger.warning("sample %s of %s is damaged and is replaced: %s", each.key, each.shard, each.reason)
        self._batches += 1
        self._ahead += ahead
        total = self._total
        self._total = Effort(
            total.seconds + effort.seconds, total.cpu_s + effort.cpu_s, total.num_bytes + effort.num_bytes
        )
        self._slowest = max(self._slowest, effort.slowest)

    def take(self) -> dict[str, float]:
        """Metrics of the interval; starts the next one. Empty without a batch."""
        now = self.clock()
        seconds, batches, ahead, total = now - self._started, self._batches, self._ahead, self._total
        self._started, self._batches, self._ahead, self._total = now, 0, 0, Effort(0.0, 0.0, 0)
        self.slowest, self._slowest = self._slowest, NO_READ
        if batches == 0 or seconds <= 0:
            return {}
        slowest = {"data_slowest_read_s": self.slowest.seconds} if self.slowest.shard else {}
        return slowest | {
            "data_ahead": ahead / batches,
            "data_mib_per_s": total.num_bytes / 2**20 / seconds,
            "data_cpu_share": min(1.0, total.cpu_s / total.seconds) if total.seconds > 0 else 0.0,
        }

    def take_skipped(self) -> dict[str, int]:
        """Shard -> number of samples that were replaced since the last call."""
        counts, self._skipped = dict(self._skipped), Counter()
        return counts


def waiting_hint(values: Mapping[str, float], slowest: Slowest = NO_READ) -> str | None:
    """A sentence on why the model waits for data and what to change; None below 5 % or without a loader's metrics.

    `slowest`: the slowest read of the same interval.
    """
    share, cpu_share = values.get("data_wait_share", 0.0), values.get("data_cpu_share")
    if share <= WAITING or cpu_share is None:
        return None
    if cpu_share >= _BUSY:
        cause = (
            "decoding and augmentation fill the loader's cores: set data.reader_threads higher, on cores that are free"
        )
    elif slowest.is_remote:
        cause = (
            f"its threads wait for the network (the slowest read, {slowest.seconds:.1f} s, was of {slowest.shard}): "
            "set data.storage.mib_in_flight, data.reader_threads or data.prefetch_batches higher, or keep copies on a "
            "disk of the node with data.storage.staging"
        )
    elif slowest.shard:
        cause = (
            f"its threads wait for the disk or for a core (the slowest read, {slowest.seconds:.1f} s, was of "
            f"{slowest.shard}): put dataset and cache on a faster disk or set data.storage.staging, or set "
            "data.reader_threads and data.prefetch_batches higher"
        )
    else:
        cause = (
            "its threads wait for the disk or network (or for a core): put dataset and cache on a faster disk, or set "
            "data.reader_threads and data.prefetch_batches higher"
        )
    return f"{share:.0%} of the time is spent waiting for data; {cause}"
