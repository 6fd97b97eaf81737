"""Speed of a job: samples per second, share of time spent waiting for data, FLOP/s, memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import psutil

GIB = 1024**3
TERA = 1e12


def process_memory_gib(pid: int | None = None) -> float:
    """Resident memory of one process (default: this one) in GiB."""
    return psutil.Process(pid).memory_info().rss / GIB


@dataclass(frozen=True)
class Arithmetic:
    """Converts samples per second into FLOP/s."""

    flops_per_sample: float  # forward and backward, without recomputation
    world_size: int
    peak_tflops: float | None  # of one rank's device; None where no reliable peak is known (CPU)

    def metrics(self, samples_per_s: float) -> dict[str, float]:
        """Achieved `tflops_per_rank`, and `mfu`, its share of the peak (PaLM, arXiv 2204.02311, appendix B)."""
        achieved = samples_per_s * self.flops_per_sample / self.world_size / TERA
        values = {"tflops_per_rank": achieved}
        if self.peak_tflops is not None:
            values["mfu"] = achieved / self.peak_tflops
        return values


class Sampler(Protocol):
    """Measures this rank's device (`pokevla.telemetry.gpu.GpuSampler`) or its loader
    (`pokevla.data.loading.meter.LoadMeter`)."""

    def take(self) -> dict[str, float]:
        """Averages since the last call."""
        ...


@dataclass
class StepMeter:
    """Counts samples, seconds, and seconds waiting for data between two log lines.

    with meter.waiting():
        batch = next(batches)
    meter.add(samples=64)
    values = meter.take()      # {"samples_per_s", "data_wait_share", "step_s", "rss_gib"}; starts the next interval

    `arithmetic` adds `tflops_per_rank` and `mfu`, `gpu` the NVML readings of this rank's device, `loader` what
    its loader does.
    """

    clock: Callable[[], float] = time.perf_counter
    arithmetic: Arithmetic | None = None
    gpu: Sampler | None = None
    loader: Sampler | None = None
    _started: float = field(init=False)
    _waited: float = field(init=False, default=0.0)
    _samples: int = field(init=False, default=0)
    _steps: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._started = self.clock()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time in the block as waiting for data."""
        before = self.clock()
        try:
            yield
        finally:
            self._waited += self.clock() - before

    def add(self, samples: int) -> None:
        """Count one finished step over `samples` samples (of all ranks together)."""
        self._samples += samples
        self._steps += 1

    def restart(self) -> None:
        """Start a new interval, to exclude the first step, a save or an evaluation from the speed."""
        self._started, self._waited, self._samples, self._steps = self.clock(), 0.0, 0, 0

    def take(self) -> dict[str, float]:
        """Metrics of the interval; starts the next one. Shares are in [0, 1]; all are 0 if no time has passed."""
        seconds = self.clock() - self._started
        values = {
            "samples_per_s": self._samples / seconds if seconds > 0 else 0.0,
            "data_wait_share": min(1.0, self._waited / seconds) if seconds > 0 else 0.0,
            "step_s": seconds / self._steps if self._steps else 0.0,
            "rss_gib": process_memory_gib(),
        }
        if self.arithmetic is not None and self._steps:
            values |= self.arithmetic.metrics(values["samples_per_s"])
        if self.gpu is not None:
            values |= self.gpu.take()
        if self.loader is not None:
            values |= self.loader.take()
        self.restart()
        return values
