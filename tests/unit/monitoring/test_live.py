"""What is told of a run while it goes and after it has ended, read from its directory alone."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from monitoring.live import WINDOW_LINES, LiveRun
from monitoring.queue_state import QueueState
from pokevla.errors import UsageError
from pokevla.runs.creation import run_lock
from pokevla.telemetry.jsonl import JsonlWriter
from tests.unit.monitoring.run_folders import START_S, append, event, finish, iso, make_run, save, train_line


class Clock:
    """Seconds since the start of the run, set by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return START_S + self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of 100 steps that has logged 10 to 40, two seconds a step, after a minute of starting."""
    run_dir = make_run(tmp_path / "one")
    append(run_dir / "events.jsonl", event("started", 0, step=0))
    append(run_dir / "metrics.jsonl", *(train_line(step, 60 + 2 * step) for step in range(10, 41, 10)))
    return run_dir


def heartbeat(run_dir: Path, rank: int, step: int, seconds: float, **changes: object) -> None:
    folder = run_dir / "heartbeat"
    folder.mkdir(exist_ok=True)
    content = {
        "rank": rank, "host": f"node{rank}", "pid": 1, "step": step, "phase": "forward", "phase_s": 0.5,
        "progress": 4 * step, "every_s": 10.0, "time": iso(seconds),
    }  # fmt: skip
    path = folder / f"rank_{rank:05d}.json"
    path.write_text(json.dumps(content | changes))
    os.utime(path, (START_S + seconds, START_S + seconds))


def test_a_running_run_tells_progress_figures_and_its_end(run: Path, clock: Clock) -> None:
    clock.seconds = 150
    append(run / "metrics.jsonl", {"step": 40, "val/loss": 0.9, "time": iso(141)})
    with run_lock(run):
        seen = LiveRun(run, clock).snapshot(None)

    assert (seen.state, seen.step, seen.steps) == ("running", 40, 100)
    assert seen.step_s == pytest.approx(2.0)  # between the lines, not since the start
    assert seen.eta_s == pytest.approx(120.0)
    assert seen.age_s == pytest.approx(9.0)
    assert seen.figures["loss"] == pytest.approx(1.6)
    assert seen.figures["val/loss"] == 0.9
    assert seen.history == pytest.approx([1.9, 1.8, 1.7, 1.6])
    assert json.loads(json.dumps(seen.to_dict()))["step"] == 40


def test_only_new_lines_are_read_at_the_next_look(run: Path, clock: Clock) -> None:
    live = LiveRun(run, clock)
    live.snapshot(None)
    append(run / "metrics.jsonl", train_line(50, 160, loss=None))
    seen = live.snapshot(None)
    assert (seen.step, seen.figures["loss"], seen.history[-1]) == (50, None, None)  # not finite


def test_after_a_resume_the_dropped_steps_are_forgotten(run: Path, clock: Clock) -> None:
    live = LiveRun(run, clock)
    live.snapshot(None)
    append(run / "events.jsonl", event("resumed", 200, step=20))
    with JsonlWriter(run / "metrics.jsonl", resume_step=20) as writer:
        writer.write(train_line(30, 300))
        writer.write(train_line(40, 350))
    seen = live.snapshot(None)
    assert (seen.step, len(seen.history), seen.restarts) == (40, 4, 1)
    assert seen.step_s == pytest.approx(5.0)  # the time between the two jobs is no training


def test_memory_is_bounded(run: Path, clock: Clock) -> None:
    append(run / "metrics.jsonl", *(train_line(step, 60 + step) for step in range(50, 50 + 3 * WINDOW_LINES)))
    live = LiveRun(run, clock)
    assert len(live.snapshot(None).history) == WINDOW_LINES


def test_a_run_without_a_word_at_its_end_has_failed(run: Path, clock: Clock) -> None:
    seen = LiveRun(run, clock).snapshot(None)
    assert (seen.state, seen.eta_s) == ("failed", None)
    assert "killed" in seen.reason


@pytest.mark.parametrize(
    ("end", "state", "reason"),
    [
        (event("failed", 200, message="Rank 1 was killed by SIGKILL."), "failed", "Rank 1 was killed by SIGKILL."),
        (event("stopped", 200, reason="timeout", step=40), "stopped", "stopped reason timeout step 40"),
    ],
)
def test_how_a_run_ended_is_told_in_its_own_words(run: Path, clock: Clock, end: dict, state: str, reason: str) -> None:
    append(run / "events.jsonl", end)
    seen = LiveRun(run, clock).snapshot(None)
    assert (seen.state, seen.reason) == (state, reason)


def test_a_run_is_starting_until_its_first_step_is_done(tmp_path: Path, clock: Clock) -> None:
    run_dir = make_run(tmp_path / "one")
    with run_lock(run_dir):
        seen = LiveRun(run_dir, clock).snapshot(None)
        assert (seen.state, seen.reason) == ("starting", "the ranks have not reported yet")
        heartbeat(run_dir, 0, 0, seconds=0, phase="building the model", progress=2)
        seen = LiveRun(run_dir, clock).snapshot(None)
        assert (seen.state, seen.reason) == ("starting", "building the model, before the first step")
        append(run_dir / "events.jsonl", event("started", 1, step=0))
        heartbeat(run_dir, 0, 0, seconds=0)
        assert LiveRun(run_dir, clock).snapshot(None).reason == "forward, before the first step"
        append(run_dir / "metrics.jsonl", train_line(1, 5))
        assert LiveRun(run_dir, clock).snapshot(None).state == "running"


def test_a_run_that_is_resumed_is_starting_again(run: Path, clock: Clock) -> None:
    append(run / "events.jsonl", event("stopped", 200, reason="terminated", step=40))
    with run_lock(run):
        seen = LiveRun(run, clock).snapshot(None)
        assert (seen.state, seen.eta_s) == ("starting", None)  # the job has not recorded its start yet
        append(run / "events.jsonl", event("resumed", 300, step=40))
        assert LiveRun(run, clock).snapshot(None).state == "starting"
        append(run / "metrics.jsonl", train_line(50, 360))
        assert LiveRun(run, clock).snapshot(None).state == "running"


def test_a_rank_that_restores_a_checkpoint_of_a_killed_run_is_starting(run: Path, clock: Clock) -> None:
    clock.seconds = 500
    heartbeat(run, 0, 0, seconds=495, phase="restoring")
    with run_lock(run):  # the events still end with the start of the killed job
        assert LiveRun(run, clock).snapshot(None).state == "starting"


def test_finished_and_never_started_runs(run: Path, tmp_path: Path, clock: Clock) -> None:
    save(run, 100)
    finish(run)
    seen = LiveRun(run, clock).snapshot(None)
    assert (seen.state, seen.step) == ("finished", 100)
    assert LiveRun(make_run(tmp_path / "two"), clock).snapshot(None).state == "new"


@pytest.mark.parametrize(
    ("job", "state"),
    [
        (QueueState("7", "PENDING", "job 7 PENDING (Priority)"), "queued"),
        (QueueState("7", "RUNNING", "job 7 RUNNING on n1"), "running"),
        (QueueState("7", "CANCELLED", "job 7 CANCELLED: it waited for job 6, which failed"), "stopped"),
        (QueueState("7", "TIMEOUT", "job 7 TIMEOUT"), "failed"),
        (QueueState("7", "UNKNOWN", "job 7 UNKNOWN"), "failed"),  # the events are all there is
    ],
)
def test_the_queue_has_a_say(run: Path, clock: Clock, job: QueueState, state: str) -> None:
    seen = LiveRun(run, clock).snapshot(job)
    assert (seen.state, seen.queue) == (state, job)
    if state in ("queued", "stopped"):
        assert seen.reason == job.text


def test_a_job_that_saved_and_stopped_when_asked_has_not_failed(run: Path, clock: Clock) -> None:
    append(run / "events.jsonl", event("stopped", 200, reason="terminated", step=40))
    seen = LiveRun(run, clock).snapshot(QueueState("7", "FAILED", "job 7 FAILED, exit code 75: stopped by hand"))
    assert seen.state == "stopped"


def test_counts_and_latest_events(run: Path, clock: Clock) -> None:
    clock.seconds = 500
    rows = [event("skipped", 100 + step, step=step) for step in range(20)]
    append(run / "events.jsonl", *rows, event("damaged", 400, message="x"))
    seen = LiveRun(run, clock).snapshot(None)
    assert (seen.skipped, seen.restarts, seen.damaged) == (20, 0, 1)
    assert seen.events[-1] == {"text": "damaged message x", "age_s": pytest.approx(100.0)}
    assert len(seen.events) == 8


def test_checkpoints_tell_their_condition(run: Path, clock: Clock) -> None:
    (save(run, 10) / "HEALTHY").touch()
    save(run, 20, b"more weights")
    live = LiveRun(run, clock)
    seen = {row["step"]: (row["size_bytes"], row["condition"]) for row in live.snapshot(None).checkpoints}
    assert seen == {10: (7, "healthy"), 20: (12, "complete")}
    (save(run, 30) / "state" / "a.pt").write_bytes(b"cut")
    assert [row["condition"] for row in live.snapshot(None).checkpoints] == ["healthy", "complete", "damaged"]


def test_slowest_rank_is_the_one_the_others_wait_for(run: Path, clock: Clock) -> None:
    clock.seconds = 170
    heartbeat(run, 0, 42, seconds=165)
    heartbeat(run, 1, 41, seconds=164, phase="data", phase_s=12.0)
    seen = LiveRun(run, clock).snapshot(None)
    assert seen.slowest == {
        "host": "node1", "rank": 1, "step": 41, "behind": 1, "phase": "data", "phase_s": 12.0, "age_s": 6.0,
    }  # fmt: skip
    assert (seen.ranks, seen.step) == (2, 42)


def test_a_fresh_heartbeat_from_another_machine_means_running_where_locks_are_not_shared(
    run: Path, clock: Clock
) -> None:
    heartbeat(run, 0, 42, seconds=165)
    clock.seconds = 170
    assert LiveRun(run, clock).snapshot(None).state == "running"
    clock.seconds = 300
    assert LiveRun(run, clock).snapshot(None).state == "failed"
    heartbeat(run, 0, 42, seconds=300, host=socket.gethostname())  # here the lock is what tells
    assert LiveRun(run, clock).snapshot(None).state == "failed"


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run directory"):
        LiveRun(tmp_path)
