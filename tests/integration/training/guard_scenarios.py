"""Scenarios of the guards. engine_scenarios.py runs them on its two ranks, and is their `bench`."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from pokevla.distributed.collectives import set_collective_timeout
from pokevla.errors import PokeVLAError, Requeued
from pokevla.telemetry.jsonl import EventLog, read_jsonl
from pokevla.telemetry.writers import MetricWriter
from pokevla.training.health.agreement import agree
from pokevla.training.health.pulse import Pulse
from pokevla.training.health.signals import stop_signals
from pokevla.training.health.watchdog import Watchdog


class Disturbed:
    """A loader that calls a function before this rank's first micro-batch of one step."""

    def __init__(self, loader: Any, step: int, global_batch: int, disturb: Callable[[Disturbed], None]) -> None:
        self.loader, self.disturb = loader, disturb
        self.at_position = step * global_batch
        self.shift = 0
        self.louder = 1.0

    @property
    def position(self) -> int:
        return self.loader.position + self.shift

    def __next__(self) -> Any:
        if self.loader.position == self.at_position:
            self.disturb(self)
        batch = next(self.loader)
        batch.actions[:] *= self.louder
        self.louder = 1.0
        return batch


def train(bench: Any, job: Any, start: int, disturb: Callable[[Disturbed], None] | None = None, at: int = 0) -> None:
    """Train from step `start` to the end with the callbacks of a real run; rank 1 is disturbed in step `at`."""
    events = EventLog(job.run_dir / "events.jsonl") if bench.INFO.is_main else None
    with (
        job.loader(start) as loader,
        contextlib.closing(MetricWriter(job.run_dir, bench.INFO.rank, start, sinks=["jsonl"])) as writer,
    ):
        source: Any = loader
        if disturb is not None and bench.INFO.rank == 1:
            source = Disturbed(loader, at, job.recipe.batch.global_, disturb)
        job.trainer.run(source, start, job.callbacks(writer, events))
    if events is not None:
        events.close()


def events_of(bench: Any, job: Any) -> list[dict[str, Any]]:
    dist.barrier()
    return read_jsonl(job.run_dir / "events.jsonl") if bench.INFO.is_main else []


def a_signal_to_one_rank_stops_both(bench: Any) -> dict[str, Any]:
    """Rank 1 alone is notified that the time limit is near, in its third step."""
    whole = bench.make("signal-whole")
    train(bench, whole, 0)
    first = bench.make("signal", "checkpoint.every_steps=100")
    outcome: dict[str, Any] = {}
    with stop_signals() as stop:
        first.trainer.guards.stop = stop
        try:
            train(bench, first, 0, lambda _loader: os.kill(os.getpid(), signal.SIGUSR2), at=2)
        except Requeued as error:
            outcome |= {"reason": error.reason, "message": str(error)}
    second = bench.make("signal", "checkpoint.every_steps=100")
    info = second.restore()
    outcome["step"] = info.step
    train(bench, second, info.step)
    outcome["weights"] = [bench.fingerprint(whole), bench.fingerprint(second)]
    outcome["events"] = events_of(bench, second)
    return outcome


def a_rank_elsewhere_in_the_data_is_found(bench: Any) -> dict[str, Any]:
    def shift(loader: Disturbed) -> None:
        loader.shift = 2

    try:
        train(bench, bench.make("shifted"), 0, shift, at=1)
    except PokeVLAError as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {}


def agreement(bench: Any) -> dict[str, Any]:
    """The errors of ranks that differ in one value, and the cost of the exchange."""
    same: dict[str, Any] = {
        "step": 3, "position": 24, "grad_norm": 1.5, "worst_loss": torch.tensor(1.0), "stop_code": 0
    }  # fmt: skip
    rank = bench.INFO.rank
    outcome: dict[str, Any] = {}
    for name, value in [("step", 3 + rank), ("grad_norm", 1.5 + rank), ("grad_norm", None if rank else 1.5)]:
        try:
            agree(**{**same, name: value})
        except PokeVLAError as error:
            outcome.setdefault("messages", []).append(str(error))
    rounded = agree(
        **{**same, "grad_norm": 1.5 + 1e-6 * rank, "worst_loss": torch.tensor(1.0 + rank), "stop_code": rank}
    )
    outcome["agreed"] = [rounded.worst_loss, rounded.stop_code]
    outcome["all_skipped"] = agree(**{**same, "grad_norm": None, "worst_loss": torch.tensor(-torch.inf)}).stop_code
    seconds = []
    for _ in range(300):
        begun = time.perf_counter()
        agree(**same)
        seconds.append(time.perf_counter() - begun)
    outcome["best_exchange_ms"] = min(seconds) * 1e3
    return outcome


def a_spike_on_one_rank_is_skipped_by_all_after_a_resume_too(bench: Any) -> dict[str, Any]:
    """Step 6 is bad on rank 1 only. One run is uninterrupted, the other is stopped and restored just before it."""
    settings = ("steps=8", "guards.spike=skip", "guards.spike_window=8", "checkpoint.every_steps=5")

    def shout(loader: Disturbed) -> None:
        loader.louder = 1e6

    whole = bench.make("spike-whole", *settings)
    train(bench, whole, 0, shout, at=5)
    first = bench.make("spike", *settings)
    with contextlib.suppress(Requeued):
        train(bench, first, 0, lambda _loader: first.trainer.guards.stop.note(signal.SIGUSR2), at=4)
    second = bench.make("spike", *settings)
    info = second.restore()
    train(bench, second, info.step, shout, at=5)
    return {
        "resumed_at": info.step,
        "weights": [bench.fingerprint(whole), bench.fingerprint(second)],
        "histories": [whole.trainer.guards.spikes.state(), second.trainer.guards.spikes.state()],
        "events": [events_of(bench, whole), events_of(bench, second)],
    }


def a_rank_that_hangs_is_named_by_all(bench: Any) -> dict[str, Any]:
    """Rank 1 waits for data that never arrives, rank 0 waits for rank 1."""
    job = bench.make("hang", "steps=3")
    reports: list[str] = []
    over = threading.Event()
    ended = [job.run_dir / f"ended-{rank}" for rank in range(bench.INFO.world_size)]

    def end(_code: int) -> None:
        ended[bench.INFO.rank].touch()
        over.set()

    def hang(_loader: Disturbed) -> None:
        """Wait until every rank's watchdog has reported: a rank that continued earlier would unblock the other one."""
        deadline = time.monotonic() + 120
        while not all(path.exists() for path in ended) and time.monotonic() < deadline:
            time.sleep(0.1)

    pulse = job.trainer.guards.pulse = Pulse(start_timeout_s=600.0, step_timeout_s=10.0)
    pulse.govern(set_collective_timeout)
    with Watchdog(job.run_dir, bench.INFO, pulse, lambda error: reports.append(str(error)), end=end):
        train(bench, job, 0, hang, at=1)
        over.wait(120)
    set_collective_timeout(1800)  # for the next scenarios
    stacks = (job.run_dir / "logs" / f"rank_{bench.INFO.rank:05d}.hang").read_text()
    return {"reports": reports, "stacks": stacks}


SCENARIOS = (
    a_signal_to_one_rank_stops_both,
    a_rank_elsewhere_in_the_data_is_found,
    agreement,
    a_spike_on_one_rank_is_skipped_by_all_after_a_resume_too,
    a_rank_that_hangs_is_named_by_all,
)
