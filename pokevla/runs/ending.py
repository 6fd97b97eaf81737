"""How a run ended: its last step, and the event that its parent process records. Without torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from pokevla.errors import PokeVLAError, Requeued
from pokevla.runs.checkpoints import list_checkpoints
from pokevla.runs.directory import is_exported
from pokevla.telemetry.jsonl import EVENTS, EventLog


def finished_step(run_dir: Path) -> int | None:
    """The last step of a finished run (its model is exported), otherwise None."""
    checkpoints = list_checkpoints(run_dir)
    return checkpoints[-1][0] if checkpoints and is_exported(run_dir) else None


@contextmanager
def end_noted(run_dir: Path) -> Iterator[None]:
    """Record in `events.jsonl` that the block failed, with the reason, or was stopped by hand.

    A run that was asked to stop and has saved (exit code 75) has recorded that itself.
    """
    try:
        yield
    except PokeVLAError as error:
        if error.exit_code != Requeued.exit_code:
            _note(run_dir, "failed", message=error.message)
        raise
    except KeyboardInterrupt:
        _note(run_dir, "stopped", reason="interrupted")
        raise


def _note(run_dir: Path, event: str, **fields: str) -> None:
    # On a full disk the original error matters more than failing to record it.
    with suppress(OSError, PokeVLAError), closing(EventLog(run_dir / EVENTS)) as events:
        events.add(event, **fields)
