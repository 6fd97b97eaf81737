"""metrics.jsonl and TensorBoard."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pokevla.telemetry.jsonl import read_jsonl
from pokevla.telemetry.writers import MetricWriter


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, round(event.value, 6)) for event in events.Scalars(name)]


def test_metrics_go_to_both_places(tmp_path: Path) -> None:
    writer = MetricWriter(tmp_path)
    writer.write({"step": 1, "loss": 0.5, "loss/action": 0.25, "note": "text"})
    writer.close()

    (row,) = read_jsonl(tmp_path / "metrics.jsonl")
    assert (row["step"], row["loss"], row["note"]) == (1, 0.5, "text")
    assert "time" in row
    assert scalars(tmp_path / "tensorboard", "loss/action") == [(1, 0.25)]


def test_resumed_curves_do_not_fold_back(tmp_path: Path) -> None:
    first = MetricWriter(tmp_path)
    for step in (1, 2, 3):
        first.write({"step": step, "loss": 1.0})
    first.close()

    second = MetricWriter(tmp_path, resume_step=1)
    second.write({"step": 2, "loss": 2.0})
    second.close()

    assert scalars(tmp_path / "tensorboard", "loss") == [(1, 1.0), (2, 2.0)]
    assert [row["loss"] for row in read_jsonl(tmp_path / "metrics.jsonl")] == [1.0, 2.0]


def test_a_curve_that_starts_again_does_not_fold_back(tmp_path: Path) -> None:
    """Killed before its first checkpoint, then killed again: each start hides what the one before had drawn."""
    for start, value in ((0, 1.0), (0, 2.0), (2, 3.0)):
        writer = MetricWriter(tmp_path, resume_step=start)
        for step in range(start + 1, start + 4):
            writer.write({"step": step, "loss": value})
        writer.close()
    assert scalars(tmp_path / "tensorboard", "loss") == [(1, 2.0), (2, 2.0), (3, 3.0), (4, 3.0), (5, 3.0)]


def test_what_was_flushed_survives_a_kill(tmp_path: Path) -> None:
    """TensorBoard's writer holds events back; a checkpoint must not be ahead of its curves."""
    writer = MetricWriter(tmp_path)
    writer.write({"step": 1, "loss": 0.5})
    writer.flush()
    assert scalars(tmp_path / "tensorboard", "loss") == [(1, 0.5)]
    writer.close()


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    writer = MetricWriter(tmp_path, rank=1)
    writer.write({"step": 1, "loss": 0.5})
    writer.close()

    assert list(tmp_path.iterdir()) == []
