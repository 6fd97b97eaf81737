"""How long before its time limit a job must be warned so that it can still save. Without torch."""

from __future__ import annotations

from pathlib import Path

from pokevla.telemetry.follow import JsonlFollower
from pokevla.telemetry.jsonl import EVENTS
from pokevla.telemetry.writers import METRICS

UNKNOWN_S = 300.0
"""Lead time of a run that has not saved yet. Ours."""
SLURM_S = 60.0
"""Slurm checks time limits every 30 seconds and may signal or kill up to a minute off (man sbatch, --signal)."""
OTHERS_S = 30.0
"""Time to evaluate held-out batches, record the event and end the processes."""
SAVES = 2
"""One save may be in progress when the signal arrives; the last one follows."""
SAFETY = 2.0
"""A shared file system is sometimes half as fast as usual."""
LATEST = 20
"""Number of recent saves and log lines to read."""
TAIL_BYTES = 1 << 20
"""How much of the end of a file is read for them; damaged lines are skipped."""


def needed_lead_s(run_dir: Path) -> float:
    """Seconds that this run needs between the signal and the limit: to end the current step, to finish a save in
    progress, and to save.

    Derived from the longest of the recent saves (`save_s` in events.jsonl: until it was on disk) and steps (`step_s`
    in metrics.jsonl).
    """
    saves = _latest(run_dir / EVENTS, "save_s")
    steps = _latest(run_dir / METRICS, "step_s")
    if not saves:
        return UNKNOWN_S
    return SLURM_S + OTHERS_S + SAFETY * (SAVES * max(saves) + max(steps, default=0.0))


def _latest(path: Path, name: str) -> list[float]:
    rows = JsonlFollower(path, TAIL_BYTES).read_all()
    return [float(row[name]) for row in rows if isinstance(row.get(name), int | float)][-LATEST:]
