"""How a run ended is noted where it can be read later."""

from __future__ import annotations

from pathlib import Path

import pytest

from pokevla.errors import Requeued, TrainingError
from pokevla.runs.ending import end_noted
from pokevla.telemetry.jsonl import read_jsonl


def test_an_error_is_noted_and_goes_on(tmp_path: Path) -> None:
    with pytest.raises(TrainingError), end_noted(tmp_path):
        raise TrainingError("Rank 1 was killed by SIGKILL.", "Look at its log.")
    (row,) = read_jsonl(tmp_path / "events.jsonl")
    assert (row["event"], row["message"]) == ("failed", "Rank 1 was killed by SIGKILL.")


def test_a_run_that_has_saved_and_stopped_is_no_failure(tmp_path: Path) -> None:
    with pytest.raises(Requeued), end_noted(tmp_path):
        raise Requeued("The job has saved.")
    assert not (tmp_path / "events.jsonl").exists()  # the ranks write that event


def test_an_interrupt_by_hand_is_no_failure(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), end_noted(tmp_path):
        raise KeyboardInterrupt
    (row,) = read_jsonl(tmp_path / "events.jsonl")
    assert (row["event"], row["reason"]) == ("stopped", "interrupted")


def test_a_good_end_needs_no_note(tmp_path: Path) -> None:
    with end_noted(tmp_path):
        pass
    assert not (tmp_path / "events.jsonl").exists()
