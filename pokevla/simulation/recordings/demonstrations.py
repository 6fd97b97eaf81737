"""Records demonstrations of the scripted expert in LIBERO's HDF5 layout, in parallel processes.

Initial state, shift, start and noise of an attempt depend on (seed, attempt number) only, and the first `episodes`
successes by attempt number are kept: the same episodes for any number of workers (except for the last bits of the
states in one comparison, docs/simulation.md). Episodes are written one by one, so memory does not grow with their
number: at most two finished episodes per worker are held back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pokevla.errors import SimulationError, UsageError
from pokevla.simulation.recordings.episodes import Attempts, DemoSettings, Episode
from pokevla.simulation.recordings.hdf5 import COLLECTION, DemonstrationsFile, demonstrations_path, new_hdf5
from pokevla.simulation.recordings.unfinished import forget, resumed
from pokevla.simulation.recordings.workers import run_ordered
from pokevla.simulation.suites import get_task

__all__ = ["DemoReport", "DemoSettings", "collect_demonstrations"]

Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class DemoReport:
    """`kept` successes and `failed` attempts for `requested` episodes; CPU seconds by physics, rgb and masks."""

    kept: int
    failed: int
    requested: int
    path: Path
    steps: list[int] = field(default_factory=list)
    cpu_s: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON form. The key of `requested` is `wanted`."""
        return {"kept": self.kept, "failed": self.failed, "wanted": self.requested, "path": str(self.path),
                "steps": self.steps, "cpu_s": self.cpu_s}  # fmt: skip


def collect_demonstrations(settings: DemoSettings, on_progress: Progress | None = None) -> DemoReport:
    """Collect successful episodes into `<out>/<suite>/<task name>_demo.hdf5`.

    `on_progress(kept, failed, requested)` is called after each attempt. Failed attempts are counted, not kept. After
    `max_attempts` (default: twice the episodes plus ten) the kept episodes are written, and the report has fewer than
    requested. Attempts of a recording with the same settings that was killed are not repeated.

    Raises:
        UsageError: invalid settings.
        DataError: the file exists and was not recorded by us, or another process is recording it.
        SimulationError: no attempt succeeded.
        DiskFullError: disk full; no file is left.
    """
    _check(settings)
    attempts = settings.max_attempts or 2 * settings.episodes + 10
    path = demonstrations_path(settings)
    failed = 0
    cpu_s: dict[str, float] = {}
    with new_hdf5(path, COLLECTION) as file:
        kept = DemonstrationsFile(file, settings)
        for episode in resumed(path, settings, partial(_attempts_from, settings, attempts)):
            for name, seconds in episode.cpu_s.items():
                cpu_s[name] = cpu_s.get(name, 0.0) + seconds
            if episode.success:
                kept.add(episode)
            else:
                failed += 1
            if on_progress is not None:
                on_progress(len(kept.steps), failed, settings.episodes)
            if len(kept.steps) == settings.episodes:
                break
        if not kept.steps:
            forget(path)
            raise SimulationError(
                f"The expert failed in all {failed} attempts at {settings.suite} task {settings.task_index}.",
                "See docs/simulation.md for the tasks it can do.",
            )
        # The last ones by number, so that the number of workers cannot change the split.
        kept.finish(math.floor(settings.val_fraction * len(kept.steps) + 0.5), failed)
    forget(path)
    return DemoReport(len(kept.steps), failed, settings.episodes, path, kept.steps, cpu_s)


def _attempts_from(settings: DemoSettings, attempts: int, first: int) -> Iterator[Episode]:
    if first < attempts:
        yield from run_ordered(Attempts, (settings, first), attempts - first, settings.workers)


def _check(settings: DemoSettings) -> None:
    task = get_task(settings.suite, settings.task_index)
    low, high = settings.init_states
    if not 0 <= low < high <= task.num_init_states:
        raise UsageError(
            f"Initial states {low}:{high} are not within {settings.suite} task {task.index}.",
            f"It has {task.num_init_states}: give a range within 0:{task.num_init_states}.",
        )
    for name in ("episodes", "image_stride", "image_size", "workers"):
        if getattr(settings, name) < 1:
            raise UsageError(f"{name} is {getattr(settings, name)}.", "It must be at least 1.")
    if not 0.0 <= settings.val_fraction < 1.0:
        raise UsageError(f"val_fraction is {settings.val_fraction}.", "It must be at least 0 and below 1.")
    shift = settings.target_shift_m
    if shift is not None and not 0.0 <= shift[0] < shift[1]:
        raise UsageError(f"Target shift range [{shift[0]}, {shift[1]}] m is empty.", "Use 0 <= low < high.")
    if settings.dart_sigma < 0.0 or settings.random_start_steps < 0:
        raise UsageError("dart_sigma and random_start_steps cannot be negative.", "Use 0 to switch them off.")
