"""Finds slow hosts from each rank's own work per step, excluding the time it waits for other ranks.

All ranks finish a step together, so step time does not reveal the slow one. The work before the first collective does:
fetching batches and the forward passes. A slow CPU, GPU or disk shows up there. With ZeRO stage 3, forward passes
gather weights, so the measurement is less sensitive.
"""

from __future__ import annotations

import logging
import socket
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch

from pokevla.distributed.collectives import gather_objects
from pokevla.recipe.running import GuardsConfig
from pokevla.telemetry.jsonl import EventLog

logger = logging.getLogger(__name__)


class OwnWork:
    """Seconds spent in `with own_work:` blocks. On a GPU, measured with CUDA events, because kernels run
    asynchronously."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._seconds = 0.0
        self._started = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def __enter__(self) -> Self:
        if self._cuda:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            self._events.append((start, end))
        else:
            self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._cuda:
            self._events[-1][1].record()
        else:
            self._seconds += time.perf_counter() - self._started

    def take(self) -> float:
        """Seconds of own work since the last call."""
        for start, end in self._events:
            end.synchronize()
            self._seconds += start.elapsed_time(end) / 1e3  # ms
        seconds, self._seconds = self._seconds, 0.0
        self._events.clear()
        return seconds


@dataclass(frozen=True)
class Slowest:
    """The slowest rank and its host, compared with the mean of all ranks."""

    host: str
    rank: int
    step_s: float  # its own work in a step
    mean_step_s: float  # mean of all ranks

    @property
    def factor(self) -> float:
        """Ratio of its own work to the mean."""
        return self.step_s / self.mean_step_s if self.mean_step_s > 0 else 1.0


def find_slowest(step_s: list[float], hosts: list[str]) -> Slowest:
    """Find the slowest rank from the seconds of own work and the host of each rank."""
    rank = max(range(len(step_s)), key=step_s.__getitem__)
    return Slowest(hosts[rank], rank, step_s[rank], sum(step_s) / len(step_s))


class StragglerReport:
    """Adds two columns to the log and records an event when a host stays slow."""

    def __init__(self, own_work: OwnWork, hosts: list[str], factor: float, steps: int, events: EventLog | None) -> None:
        """`hosts` is indexed by rank. A host is reported when it is `factor` times slower than the mean for `steps`
        consecutive steps, and again every `steps` steps while it stays slow."""
        self._own_work, self._hosts, self._events = own_work, hosts, events
        self._factor, self._steps = factor, steps
        self._slow_host: str | None = None
        self._slow_steps = 0

    def take(self, step: int, steps: int) -> dict[str, float]:
        """Columns of the log line after `step`, averaged over the last `steps` steps. Called by all ranks."""
        slowest = find_slowest(gather_objects(self._own_work.take() / max(steps, 1)), self._hosts)
        self.judge(slowest, step, steps)
        return {"step_s/mean": slowest.mean_step_s, "step_s/max": slowest.step_s}

    def judge(self, slowest: Slowest, step: int, steps: int) -> None:
        """Count for how many steps the same host has been slow, and report it when due."""
        host = slowest.host if slowest.factor >= self._factor else None
        self._slow_steps = steps + (self._slow_steps if host == self._slow_host else 0)
        self._slow_host = host
        if host is None or self._slow_steps < self._steps:
            return
        self._slow_steps = 0
        if self._events is not None:
            logger.warning("%s (rank %d) takes %.2f times as long as the mean", host, slowest.rank, slowest.factor)
            self._events.add("straggler", step=step, host=host, rank=slowest.rank, factor=round(slowest.factor, 3))


def build_straggler_report(config: GuardsConfig, own_work: OwnWork, events: EventLog | None) -> StragglerReport:
    """Build the report of a recipe. Called by all ranks, which exchange their host names."""
    hosts = gather_objects(socket.gethostname())
    return StragglerReport(own_work, hosts, config.straggler_factor, config.straggler_steps, events)
