"""How a run ended is noted where it can be read later."""

from __future__ import annotations

from pathlib import Path

import pytest

from pokevla.errors import Requeued, TrainingError
from pokevla.telemetry.jsonl import read_jsonl
from pokevla.training.launch import end_noted


@pytest.mark.parametrize(
    ("end", "noted"),
    [
        (
            TrainingError("Rank 1 was killed by SIGKILL.", "Look at its log."),
            ("failed", "Rank 1 was killed by SIGKILL."),
        ),
        (Requeued("The job has saved."), ("stopped", "The job has saved.")),
    ],
)
def test_an_error_is_noted_and_goes_on(tmp_path: Path, end: Exception, noted: tuple[str, str]) -> None:
    with pytest.raises(type(end)), end_noted(tmp_path):
        raise end
    (row,) = read_jsonl(tmp_path / "events.jsonl")
    assert (row["event"], row["message"]) == noted


def test_an_interrupt_by_hand_is_no_failure(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), end_noted(tmp_path):
        raise KeyboardInterrupt
    (row,) = read_jsonl(tmp_path / "events.jsonl")
    assert (row["event"], row["by"]) == ("stopped", "keyboard")


def test_a_good_end_needs_no_note(tmp_path: Path) -> None:
    with end_noted(tmp_path):
        pass
    assert not (tmp_path / "events.jsonl").exists()
