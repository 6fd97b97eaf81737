"""How fast a run goes, from its lines of metrics: for the time that is left."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

RECENT_S = 300.0
"""The recent window: speed is measured over the lines of this many seconds before the last one, ..."""
RECENT_LINES = 10
"""... and over at least this many lines."""
MIN_SPAN_S = 10.0
"""Shortest span to compute a speed from, because times are written in whole seconds."""


def seconds_of(row: dict[str, Any] | None) -> float | None:
    """The `time` of a row (ISO 8601 with time zone) in seconds since 1970; None if it has none."""
    if row is None or not isinstance(row.get("time"), str):
        return None
    try:
        return datetime.fromisoformat(row["time"]).timestamp()
    except (ValueError, OverflowError):  # not a time, or a year that the clock does not know
        return None


def seconds_per_step(rows: Iterable[dict[str, Any]], begun_s: float = 0.0) -> float | None:
    """Wall-clock time per step over the recent window, saves and validations included.

    `rows` are lines of training metrics, oldest first; those before `begun_s` (seconds since 1970, the last start) are
    left out, because the time between two jobs is not training. If they span too little time, the last line's own
    `step_s`; None if it has none.
    """
    rows = list(rows)
    lines = [(row["step"], at) for row in rows if (at := seconds_of(row)) is not None and at >= begun_s]
    if lines:
        last, end_s = lines[-1]
        first, start_s = max(
            lines[-1 - RECENT_LINES :], [line for line in lines if end_s - line[1] <= RECENT_S], key=len
        )[0]
        if last > first and end_s - start_s >= MIN_SPAN_S:
            return (end_s - start_s) / (last - first)
    step_s = rows[-1].get("step_s") if rows else None
    return step_s if isinstance(step_s, int | float) else None
