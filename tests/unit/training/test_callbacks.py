"""What is logged after a step, and when a run stops. One rank, no process group."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from pokevla.errors import Requeued, TrainingError
from pokevla.recipe.running import CheckpointConfig, GuardsConfig
from pokevla.telemetry.jsonl import EventLog, read_jsonl
from pokevla.telemetry.meters import StepMeter
from pokevla.telemetry.writers import MetricWriter
from pokevla.training.callbacks import StepGuard, StepResult, StopWhenAsked, stop_if_requested
from pokevla.training.health.guards import Guards, build_guards
from pokevla.training.saving import Saver, SaveWhenDue

CPU = torch.device("cpu")
SPIKE = 50.0


def result(step: int, loss: float = 2.0, norm: float | None = 1.0, is_last: bool = False) -> StepResult:
    return StepResult(step, 8 * step, is_last, {}, 1e-3, norm, {}, torch.tensor(loss))


class RecordingSaver:
    """Replaces the Saver, which needs an engine, and records the steps at which it is asked to save."""

    blocked_s = 0.5

    def __init__(self, bench: Bench) -> None:
        self.bench, self.settings = bench, CheckpointConfig(every_steps=4)

    def save(self, result: StepResult, *, wait: bool, last_chance: bool = False) -> bool:
        assert self.bench.guards.pulse.name == "save"
        self.bench.saved.append(result.step)
        return True

    def look_after(self, result: StepResult) -> None:
        pass

    def complete_pending(self, result: StepResult, *, last_chance: bool = False) -> None:
        pass


class Bench:
    """The callbacks for guard, saving and stopping, with their events."""

    def __init__(self, run_dir: Path, deferred: bool = False, **settings: Any) -> None:
        self.guards: Guards = build_guards(GuardsConfig.model_validate({"spike_window": 8, **settings}), CPU)
        self.path = run_dir / "events.jsonl"
        self.saved: list[int] = []
        events = EventLog(self.path)
        guard = StepGuard(self.guards, events, deferred, lambda result: result.is_last or result.step % 4 == 0)
        writer = MetricWriter(run_dir, 0)
        saving = SaveWhenDue(cast(Saver, RecordingSaver(self)), writer, StepMeter(), self.guards.pulse)
        self.chain = [guard, saving, StopWhenAsked(guard, saving, run_dir, events)]

    def after(self, *results: StepResult) -> None:
        for one in results:
            for callback in self.chain:
                callback.after_step(one)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [{name: row[name] for name in row if name != "time"} for row in read_jsonl(self.path)]


def steady(steps: int = 4) -> list[StepResult]:
    return [result(step) for step in range(1, steps + 1)]


def test_a_spike_is_written_down_and_changes_nothing_by_default(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.after(*steady(), result(5, SPIKE), result(6))
    assert bench.events == [{"event": "spike", "step": 5, "position": 40, "loss": SPIKE, "limit": pytest.approx(2.2)}]
    assert bench.guards.skips.total == 0


def test_a_spike_that_was_skipped_says_why(tmp_path: Path) -> None:
    bench = Bench(tmp_path, spike="skip")
    bench.after(*steady(), result(5, SPIKE, norm=None), result(6, math.nan, norm=None))
    skipped = [row for row in bench.events if row["event"] == "skipped"]
    assert [(row["step"], row["reason"]) for row in skipped] == [(5, "spike"), (6, "not finite")]


def test_a_spike_can_end_the_run(tmp_path: Path) -> None:
    bench = Bench(tmp_path, spike="stop")
    with pytest.raises(TrainingError, match="A loss of 50 in step 5 is a spike"):
        bench.after(*steady(), result(5, SPIKE))


def test_results_read_a_step_later_give_the_same_events(tmp_path: Path) -> None:
    steps = [*steady(), result(5, SPIKE), result(6), result(7, math.nan, norm=None), result(8)]
    states = []
    for deferred in (False, True):
        bench = Bench(tmp_path / str(deferred), deferred)
        bench.after(*steps)
        states.append((bench.events, bench.guards.spikes.state(), bench.guards.skips.state(), bench.saved))
    assert states[0] == states[1]


def test_a_result_waits_one_step_except_where_it_is_needed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, deferred=True)
    for step, judged in [(1, 0), (2, 1), (3, 2), (4, 4), (5, 4), (6, 5)]:
        bench.after(result(step, loss=float(step)))
        assert bench.guards.spikes.state() == tuple(float(number) for number in range(1, judged + 1))
    assert bench.guards.pulse.step == 6


def test_a_deferred_stop_is_one_step_later_and_saves_everything(tmp_path: Path) -> None:
    bench = Bench(tmp_path, deferred=True)
    bench.guards.stop.code = 2
    bench.after(result(1))
    with pytest.raises(Requeued, match="saved at step 2"):
        bench.after(result(2))
    assert bench.saved == [2]
    assert len(bench.guards.spikes.state()) == 2


def test_a_stop_saves_once_writes_it_down_and_names_the_reason(tmp_path: Path) -> None:
    for stop_at, saved in [(3, [3]), (4, [4]), (5, [4, 5])]:
        run_dir = tmp_path / str(stop_at)
        bench = Bench(run_dir)
        bench.after(*steady(stop_at - 1))
        bench.guards.stop.code = 2
        with pytest.raises(Requeued, match=f"saved at step {stop_at}") as caught:
            bench.after(result(stop_at))
        assert caught.value.reason == "timeout"
        assert bench.saved == saved
        stopped = {"event": "stopped", "reason": "timeout", "step": stop_at, "position": 8 * stop_at}
        assert bench.events[-1] == stopped


def test_a_run_that_is_finished_anyway_is_not_stopped(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.guards.stop.code = 3
    bench.after(result(1, is_last=True))
    assert bench.saved == [1]
    assert not bench.events


def test_a_signal_during_start_up_ends_the_job_before_its_first_step(tmp_path: Path) -> None:
    guards = build_guards(GuardsConfig(), CPU)
    events = EventLog(tmp_path / "events.jsonl")
    stop_if_requested(guards, CPU, 4, 32, tmp_path, events)
    guards.stop.code = 3
    with pytest.raises(Requeued, match="saved at step 4"):
        stop_if_requested(guards, CPU, 4, 32, tmp_path, events)
    assert [row["event"] for row in read_jsonl(tmp_path / "events.jsonl")] == ["stopped"]
