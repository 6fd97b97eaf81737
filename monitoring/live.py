"""State of a run as read from its directory, without torch: for `watch` and `runs`."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from monitoring.checkpoint_status import CheckpointList, CheckpointStatus
from monitoring.events import STARTS, EventTally, sentence
from monitoring.queue_state import QueueState
from pokevla.recipe.planning.plan import planned_steps
from pokevla.runs.creation import is_locked
from pokevla.runs.directory import is_exported, read_run_recipe
from pokevla.telemetry.follow import JsonlFollower
from pokevla.telemetry.heartbeat import ENDED, SILENT_AFTER, Heartbeat, read_heartbeats, reporting_elsewhere
from pokevla.telemetry.pace import seconds_of, seconds_per_step
from pokevla.telemetry.writers import METRICS

TAIL_BYTES = 256 * 1024
"""How much of the end of metrics.jsonl is read at first: several hundred lines."""
WINDOW_LINES = 240
"""Lines of metrics that are kept, for the curve and the speed."""
NOT_FIGURES = ("step", "position", "time")
START_PHASES = ("start", "rendezvous", "building the model", "restoring")
"""Phases of a rank before its first step (pokevla.training.rank_main)."""

State = Literal["new", "queued", "starting", "running", "finished", "stopped", "failed", "unfinished", "unreadable"]


@dataclass(frozen=True)
class Snapshot:
    """State of a run at one moment. Ages and durations are in seconds."""

    run: str
    kind: str
    state: State
    reason: str
    step: int
    steps: int | None  # None if unknown (epochs of datasets that do not exist here)
    figures: dict[str, float | None]  # latest metrics of training and of validation; None if not finite
    history: list[float | None]  # losses of the latest lines
    step_s: float | None
    eta_s: float | None
    age_s: float | None  # since the last sign of life
    slowest: dict[str, Any] | None
    ranks: int  # that have a heartbeat
    checkpoints: list[dict[str, Any]]
    events: list[dict[str, Any]]
    skipped: int
    restarts: int
    damaged: int  # checkpoints that were skipped on resume
    queue: QueueState | None
    results: list[dict[str, Any]] = field(default_factory=list)  # of an evaluation, by policy

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return dataclasses.asdict(self)


class LiveRun:
    """Follows one run. Memory does not grow with its length."""

    def __init__(self, run_dir: Path, clock: Callable[[], float] = time.time) -> None:
        """UsageError if `run_dir` is not a training run."""
        self.run_dir = run_dir
        self.recipe = read_run_recipe(run_dir)
        self.steps = planned_steps(self.recipe)
        self.events = EventTally(run_dir)
        self.new_events: list[dict[str, Any]] = []
        self._clock = clock
        self._metrics = JsonlFollower(run_dir / METRICS, TAIL_BYTES)
        self._checkpoints = CheckpointList(run_dir)
        self._forget()

    def _forget(self) -> None:
        self._window: deque[dict[str, Any]] = deque(maxlen=WINDOW_LINES)
        self._figures: dict[str, float | None] = {}
        self._last_row: dict[str, Any] = {}

    def snapshot(self, queue: QueueState | None) -> Snapshot:
        """Read what is new, and combine it with the state of the queue."""
        self._read_metrics()
        self.new_events = self.events.refresh()
        beats = read_heartbeats(self.run_dir)
        checkpoints = self._checkpoints.refresh()
        now = self._clock()
        step = max([self._last_row.get("step", 0), *(beat.step for beat in beats)])
        state, reason = self._state(queue, beats, now)
        if state == "running" and not self._has_begun(step, beats, now):
            state, reason = "starting", _phase_of_start(beats, now)
        if state == "finished" and checkpoints:
            step = max(step, checkpoints[-1].step)
        step_s = seconds_per_step(self._window, seconds_of(self.events.last_start) or 0.0)
        left = None if self.steps is None else max(0, self.steps - step)
        return Snapshot(
            run=str(self.run_dir),
            kind=self.recipe.kind,
            state=state,
            reason=reason,
            step=step,
            steps=self.steps,
            figures=self._figures,
            history=[row.get("loss") for row in self._window],
            step_s=step_s,
            eta_s=left * step_s if state == "running" and left is not None and step_s is not None else None,
            age_s=self._age(now, beats),
            slowest=_slowest(beats, now),
            ranks=len(beats),
            checkpoints=[_checkpoint(status, now) for status in checkpoints],
            events=[_event(row, now) for row in self.events.latest],
            skipped=self.events.counts["skipped"],
            restarts=self.events.counts["resumed"],
            damaged=self.events.counts["damaged"],
            queue=queue,
        )

    def _read_metrics(self) -> None:
        while rows := self._metrics.read():
            if self._metrics.replaced:  # a resume has dropped the steps that it will repeat
                self._forget()
            for row in rows:
                if not isinstance(row.get("step"), int):
                    continue
                self._last_row = row
                self._figures |= {
                    name: value for name, value in row.items()
                    if name not in NOT_FIGURES and (value is None or isinstance(value, int | float))
                }  # fmt: skip
                if "loss" in row and (row["loss"] is None or isinstance(row["loss"], int | float)):
                    self._window.append(row)

    def _state(self, queue: QueueState | None, beats: list[Heartbeat], now: float) -> tuple[State, str]:
        if is_exported(self.run_dir):
            return "finished", ""
        if (
            is_locked(self.run_dir)
            or (queue is not None and queue.runs)
            or reporting_elsewhere(beats, datetime.fromtimestamp(now, UTC))
        ):
            return "running", ""
        turn = self.events.last_turn
        if queue is not None and queue.state != "UNKNOWN":
            state, reason = state_of_job(queue)
            # The model is not exported, and Slurm counts a job that saved and stopped (exit code 75) as failed.
            asked = turn is not None and turn["event"] == "stopped"
            return ("stopped" if state == "finished" or (state == "failed" and asked) else state), reason
        if turn is None:
            return "new", "never started"
        if turn["event"] in STARTS:
            return "failed", "ended without an event: killed, or the machine went down"
        if turn["event"] == "failed":
            return "failed", str(turn.get("message", ""))
        return "stopped", sentence(turn)

    def _has_begun(self, step: int, beats: list[Heartbeat], now: float) -> bool:
        """Whether the running job has completed a step."""
        turn = self.events.last_turn
        if any(beat.phase in START_PHASES for beat in _fresh(beats, now)):
            return False
        return turn is not None and turn["event"] in STARTS and step > turn.get("step", 0)

    def _age(self, now: float, beats: list[Heartbeat]) -> float | None:
        times = [seconds_of(self._last_row), *(seconds_of(row) for row in self.events.latest)]
        ages = [max(0.0, now - at) for at in times if at is not None] + [_age_of(beat, now) for beat in beats]
        return min(ages, default=None)


def state_of_job(queue: QueueState) -> tuple[State, str]:
    """State of a run, and the reason, from the state of its newest job."""
    if queue.waits:
        return "queued", queue.text
    if queue.runs:
        return "running", queue.text
    states: dict[str, State] = {"COMPLETED": "finished", "CANCELLED": "stopped", "PREEMPTED": "stopped"}
    return states.get(queue.state, "failed"), queue.text


def _slowest(beats: list[Heartbeat], now: float) -> dict[str, Any] | None:
    """The rank with the least progress, among equals the one with the oldest heartbeat: the others wait for it."""
    if not beats:
        return None
    beat = min(beats, key=lambda beat: (beat.progress, beat.time))
    most = max(other.step for other in beats)
    return {
        "host": beat.host, "rank": beat.rank, "step": beat.step, "behind": most - beat.step, "phase": beat.phase,
        "phase_s": beat.phase_s, "age_s": _age_of(beat, now),
    }  # fmt: skip


def _fresh(beats: list[Heartbeat], now: float) -> list[Heartbeat]:
    """Heartbeats of ranks that still write them."""
    return [beat for beat in beats if beat.phase not in ENDED and _age_of(beat, now) <= SILENT_AFTER * beat.every_s]


def _phase_of_start(beats: list[Heartbeat], now: float) -> str:
    """What the rank that the others wait for does before the first step."""
    slowest = _slowest(_fresh(beats, now), now)
    return "the ranks have not reported yet" if slowest is None else f"{slowest['phase']}, before the first step"


def _age_of(beat: Heartbeat, now: float) -> float:
    return max(0.0, beat.age_s(datetime.fromtimestamp(now, UTC)))


def _checkpoint(status: CheckpointStatus, now: float) -> dict[str, Any]:
    age_s = max(0.0, now - status.saved_s)
    return {"step": status.step, "age_s": age_s, "size_bytes": status.size_bytes, "condition": status.condition}


def _event(row: dict[str, Any], now: float) -> dict[str, Any]:
    at = seconds_of(row)
    return {"text": sentence(row), "age_s": None if at is None else max(0.0, now - at)}
