from __future__ import annotations

from contextlib import closing
from pathlib import Path

from pokevla.data.batch import Skipped
from pokevla.data.loading.meter import Effort, LoadMeter
from pokevla.telemetry.jsonl import EventLog, read_jsonl
from pokevla.telemetry.meters import StepMeter
from pokevla.training.health.damage import DamageReport


def test_replaced_samples_are_counted_in_metrics_and_by_shard_in_events(tmp_path: Path) -> None:
    meter = StepMeter(loader=LoadMeter())
    with closing(EventLog(tmp_path / "events.jsonl")) as events:
        report = DamageReport(meter, events)
        assert report.take(1) == {"data_skipped": 0.0}
        for shard in ("b.tar", "a.tar", "b.tar"):
            meter.loader.add(1, Effort(1.0, 1.0, 1), [Skipped(shard, "k", "damaged")])  # type: ignore[union-attr]
        assert report.take(10) == {"data_skipped": 3.0}
        assert report.take(20) == {"data_skipped": 3.0}, "a total"
    rows = [
        {name: row[name] for name in ("event", "step", "shard", "samples")}
        for row in read_jsonl(tmp_path / "events.jsonl")
    ]
    assert rows == [
        {"event": "damaged_samples", "step": 10, "shard": "a.tar", "samples": 1},
        {"event": "damaged_samples", "step": 10, "shard": "b.tar", "samples": 2},
    ]


def test_ranks_without_an_event_log_only_count() -> None:
    assert DamageReport(StepMeter(), None).take(1) == {"data_skipped": 0.0}
