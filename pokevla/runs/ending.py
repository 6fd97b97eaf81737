"""How a run ended: finished, or what the process that started its ranks has noted. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from pokevla.errors import PokeVLAError, Requeued
from pokevla.runs.checkpoints import list_checkpoints
from pokevla.runs.directory import is_exported
from pokevla.telemetry.jsonl import EVENTS, EventLog


def finished_step(run_dir: Path) -> int | None:
    """The last step of a run that is finished (its model is exported), or None."""
    checkpoints = list_checkpoints(run_dir)
    return checkpoints[-1][0] if checkpoints and is_exported(run_dir) else None


@contextmanager
def end_noted(run_dir: Path) -> Iterator[None]:
    """Write `failed` with its reason, or `stopped` by hand, to `events.jsonl` when the block ends so.

    A run that was asked to stop and has saved (exit code 75) has written its own event.
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
    # On a full disk the reason of the end matters more than this note of it.
    with suppress(OSError), closing(EventLog(run_dir / EVENTS)) as events:
        events.add(event, **fields)
