"""Which host is slow: every rank's own work per step, without the time in which it waits for the others.

All ranks end a step together, so the time of a step says nothing about who was late. What a rank does before it meets
the others does: fetching batches and the forward passes (with ZeRO stage 3 forward passes gather weights, and the
report sees less). A slow processor, GPU or disk shows there.
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
    """Seconds within `with own_work:` blocks. On a GPU between events in its stream: kernels run after the call."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._seconds = 0.0
        self._started = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def __enter__(self) -> Self:
        if self._cuda:
            begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begun.record()
            self._events.append((begun, ended))
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
        """Seconds since the last call."""
        for begun, ended in self._events:
            ended.synchronize()
            self._seconds += begun.elapsed_time(ended) / 1e3  # ms
        seconds, self._seconds = self._seconds, 0.0
        self._events.clear()
        return seconds


@dataclass(frozen=True)
class Slowest:
    """The slowest rank and its host, against all."""

    host: str
    rank: int
    step_s: float  # its own work in a step
    mean_step_s: float  # mean of all ranks

    @property
    def factor(self) -> float:
        """How many times the mean."""
        return self.step_s / self.mean_step_s if self.mean_step_s > 0 else 1.0


def find_slowest(step_s: list[float], hosts: list[str]) -> Slowest:
    """From every rank's own seconds per step and host."""
    rank = max(range(len(step_s)), key=step_s.__getitem__)
    return Slowest(hosts[rank], rank, step_s[rank], sum(step_s) / len(step_s))


class StragglerReport:
    """Two columns for the log, and an event for a host that stays slow."""

    def __init__(self, own_work: OwnWork, hosts: list[str], factor: float, steps: int, events: EventLog | None) -> None:
        """`hosts` by rank. A host `factor` times as slow as the mean for `steps` steps on end is reported, again and
        again while it lasts."""
        self._own_work, self._hosts, self._events = own_work, hosts, events
        self._factor, self._steps = factor, steps
        self._slow_host: str | None = None
        self._slow_steps = 0

    def take(self, step: int, steps: int) -> dict[str, float]:
        """Columns for a log line after `step` over the last `steps` steps. Called by all ranks."""
        slowest = find_slowest(gather_objects(self._own_work.take() / max(steps, 1)), self._hosts)
        self.judge(slowest, step, steps)
        return {"step_s/mean": slowest.mean_step_s, "step_s/max": slowest.step_s}

    def judge(self, slowest: Slowest, step: int, steps: int) -> None:
        """Count how long the same host has been slow."""
        host = slowest.host if slowest.factor >= self._factor else None
        self._slow_steps = steps + (self._slow_steps if host == self._slow_host else 0)
        self._slow_host = host
        if host is None or self._slow_steps < self._steps:
            return
        self._slow_steps = 0
        if self._events is not None:
            logger.warning("%s (rank %d) works %.2f times as long as the mean", host, slowest.rank, slowest.factor)
            self._events.add("straggler", step=step, host=host, rank=slowest.rank, factor=round(slowest.factor, 3))


def build_straggler_report(config: GuardsConfig, own_work: OwnWork, events: EventLog | None) -> StragglerReport:
    """The report of a recipe. Called by all ranks: they tell each other their hosts."""
    hosts = gather_objects(socket.gethostname())
    return StragglerReport(own_work, hosts, config.straggler_factor, config.straggler_steps, events)
