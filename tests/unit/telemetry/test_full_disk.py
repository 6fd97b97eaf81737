"""A training goes on while its disk is full: what it reports waits, and nothing already written is damaged."""

from __future__ import annotations

import logging

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pokevla.errors import DataError, TrainingError
from pokevla.runs.ending import end_noted
from pokevla.telemetry.heartbeat import beat, read_heartbeats
from pokevla.telemetry.jsonl import EventLog, read_jsonl
from pokevla.telemetry.logging import setup_logging
from pokevla.telemetry.writers import MetricWriter
from tests.conftest import SmallDisk

STEPS = 300


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's writer thread
def test_metrics_and_curves_go_on(disk_to_fill: SmallDisk, caplog: pytest.LogCaptureFixture) -> None:
    run = disk_to_fill.folder / "run"
    writer = MetricWriter(run)
    writer.write({"step": 1, "loss": 1.0})
    disk_to_fill.fill()
    with caplog.at_level(logging.WARNING):
        for step in range(2, STEPS):
            writer.write({"step": step, "loss": 1.0, "text": "x" * 100})
    disk_to_fill.free()
    writer.write({"step": STEPS, "loss": 1.0})
    writer.close()

    assert [row["step"] for row in read_jsonl(run / "metrics.jsonl")] == list(range(1, STEPS + 1))
    curves = EventAccumulator(str(run / "tensorboard"))
    curves.Reload()
    drawn = [event.step for event in curves.Scalars("loss")]
    assert (drawn[0], drawn[-1]) == (1, STEPS)
    assert sum("cannot" in record.message for record in caplog.records) == 2  # once for each place


def test_events_wait_for_room(disk_to_fill: SmallDisk) -> None:
    events = EventLog(disk_to_fill.folder / "events.jsonl")
    disk_to_fill.fill()
    for step in range(40):
        events.add("save_failed", step=step, message="x" * 200)
    disk_to_fill.free()
    events.close()
    assert [row["step"] for row in read_jsonl(disk_to_fill.folder / "events.jsonl")] == list(range(40))


def test_the_reason_of_an_end_is_not_hidden_by_a_full_disk(disk_to_fill: SmallDisk) -> None:
    (disk_to_fill.folder / "events.jsonl").write_text('{"event": "started"}\n{"half a li')
    disk_to_fill.fill()
    with pytest.raises(TrainingError, match="the reason"), end_noted(disk_to_fill.folder):
        raise TrainingError("the reason")


def test_the_last_heartbeat_stays(disk_to_fill: SmallDisk) -> None:
    rank = {"rank": 0, "host": "here", "phase": "loop", "phase_s": 1.0, "progress": 3, "every_s": 10.0}
    beat(disk_to_fill.folder, step=5, **rank)
    disk_to_fill.fill()
    with pytest.raises(DataError):
        beat(disk_to_fill.folder, step=6, **rank)
    assert [one.step for one in read_heartbeats(disk_to_fill.folder)] == [5]


def test_the_log_waits_and_prints_no_traceback(disk_to_fill: SmallDisk, capfd: pytest.CaptureFixture[str]) -> None:
    logger = setup_logging(disk_to_fill.folder, rank=1)
    logger.info("before")
    disk_to_fill.fill()
    for number in range(30):
        logger.info("line %d %s", number, "x" * 300)
    disk_to_fill.free()
    logger.info("after")
    setup_logging(None, rank=1)

    text = (disk_to_fill.folder / "logs" / "rank_00001.log").read_text()
    assert [text.count(words) for words in ("before", "line 0 ", "line 29 ", "after")] == [1, 1, 1, 1]
    assert capfd.readouterr().err == ""
