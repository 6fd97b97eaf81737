from __future__ import annotations

import re

import pytest

from pokevla.data.batch import Skipped
from pokevla.data.loading.meter import Effort, LoadMeter, waiting_hint
from pokevla.shards.reading import Slowest


def test_metrics_are_those_of_the_interval() -> None:
    now = [0.0]
    meter = LoadMeter(lambda: now[0])
    meter.add(3, Effort(1.0, 0.5, 2**20))
    meter.add(1, Effort(3.0, 0.5, 3 * 2**20))
    now[0] = 2.0
    assert meter.take() == {"data_ahead": 2.0, "data_mib_per_s": 2.0, "data_cpu_share": 0.25}
    assert meter.take() == {}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"data_wait_share": 0.2, "data_cpu_share": 0.9}, "20% of the time .* decoding .* data.reader_threads"),
        ({"data_wait_share": 0.2, "data_cpu_share": 0.1}, "disk or network .* data.prefetch_batches"),
    ],
)
def test_the_hint_names_cause_and_field(values: dict[str, float], words: str) -> None:
    hint = waiting_hint(values)
    assert hint is not None
    assert re.search(words, hint)


def test_there_is_no_hint_below_five_percent() -> None:
    assert waiting_hint({"data_wait_share": 0.05, "data_cpu_share": 0.9}) is None
    assert waiting_hint({"data_wait_share": 0.5}) is None


def test_replaced_samples_are_counted_by_shard_and_each_shard_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    meter = LoadMeter()
    effort = Effort(1.0, 0.5, 1)
    meter.add(1, effort, [Skipped("a.tar", "a-1", "a.tar is corrupted."), Skipped("b.tar", "b-1", "b.tar ends early.")])
    meter.add(1, effort, [Skipped("a.tar", "a-1", None)])
    assert meter.take_skipped() == {"a.tar": 2, "b.tar": 1}
    assert meter.take_skipped() == {}
    assert [record.getMessage() for record in caplog.records] == [
        "sample a-1 of a.tar is damaged and is replaced: a.tar is corrupted.",
        "sample b-1 of b.tar is damaged and is replaced: b.tar ends early.",
    ]


def test_the_slowest_read_of_the_interval_is_named() -> None:
    meter = LoadMeter(iter([0.0, 1.0, 2.0]).__next__)
    meter.add(1, Effort(1.0, 0.0, 1, Slowest(0.5, "/data/a.tar", False)))
    meter.add(1, Effort(1.0, 0.0, 1, Slowest(2.5, "s3://bucket/b.tar", True)))
    values = meter.take()
    assert values["data_slowest_read_s"] == 2.5
    assert meter.slowest.shard == "s3://bucket/b.tar"
    hint = waiting_hint({**values, "data_wait_share": 0.5}, meter.slowest)
    assert hint is not None
    assert re.search(
        r"network \(the slowest read, 2\.5 s, was of s3://bucket/b\.tar\).*data\.storage\.mib_in_flight", hint
    )
    disk = waiting_hint({**values, "data_wait_share": 0.5}, Slowest(0.5, "/data/a.tar", False))
    assert disk is not None
    assert re.search(r"disk .* was of /data/a\.tar\).*data\.storage\.staging", disk)
