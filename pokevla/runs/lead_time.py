"""How long before its time limit a job has to be told, so that it can still save. No torch: it answers at once."""

from __future__ import annotations

from pathlib import Path

from pokevla.telemetry.jsonl import EVENTS, read_jsonl
from pokevla.telemetry.writers import METRICS

UNKNOWN_S = 300.0
"""Lead time of a run that has not saved yet. Ours."""
SLURM_S = 60.0
"""Slurm looks at time limits every 30 seconds, and may signal or kill up to a minute off (man sbatch, --signal)."""
OTHERS_S = 30.0
"""Judging held-out batches, writing the event, ending the processes."""
SAVES = 2
"""One may be on its way to the disk when the signal comes; then follows the last one."""
SAFETY = 2.0
"""A shared file system is now and then half as fast as usual."""
LATEST = 20
"""Saves and log lines that are looked at."""


def needed_lead_s(run_dir: Path) -> float:
    """Seconds between the signal and the limit that this run needs: the step under way must end, a save that is on
    its way too, then it saves.

    From the longest of the last saves (`save_s` in events.jsonl, until it was on the disk) and steps (`step_s` in
    metrics.jsonl).
    """
    saves = _latest(run_dir / EVENTS, "save_s")
    steps = _latest(run_dir / METRICS, "step_s")
    if not saves:
        return UNKNOWN_S
    return SLURM_S + OTHERS_S + SAFETY * (SAVES * max(saves) + max(steps, default=0.0))


def _latest(path: Path, name: str) -> list[float]:
    if not path.is_file():
        return []
    return [float(row[name]) for row in read_jsonl(path) if isinstance(row.get(name), int | float)][-LATEST:]
