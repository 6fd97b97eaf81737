"""The lead time of the signal follows from what saves and steps of the run have taken."""

from __future__ import annotations

from pathlib import Path

from pokevla.runs.lead_time import OTHERS_S, SLURM_S, UNKNOWN_S, needed_lead_s
from pokevla.telemetry.jsonl import EventLog, JsonlWriter


def test_a_run_that_has_not_saved_gets_the_default(tmp_path: Path) -> None:
    assert needed_lead_s(tmp_path) == UNKNOWN_S


def test_the_longest_of_the_last_saves_and_steps_counts(tmp_path: Path) -> None:
    events = EventLog(tmp_path / "events.jsonl")
    events.add("saved", step=1, save_s=500.0)  # long ago
    for step in range(2, 30):
        events.add("saved", step=step, save_s=20.0 if step == 25 else 10.0)
        events.add("skipped", step=step)
    metrics = JsonlWriter(tmp_path / "metrics.jsonl")
    for step, step_s in enumerate([1.0, 4.0, 2.0]):
        metrics.write({"step": step, "step_s": step_s})
    metrics.write({"step": 3, "val/loss": 1.0})
    assert needed_lead_s(tmp_path) == SLURM_S + OTHERS_S + 2 * (2 * 20.0 + 4.0)
