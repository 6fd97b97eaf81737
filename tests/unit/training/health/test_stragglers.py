"""A slow host is reported once it has been slow for enough steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pokevla.telemetry.jsonl import EventLog, read_jsonl
from pokevla.training.health.stragglers import OwnWork, Slowest, StragglerReport, find_slowest

SLOW, EVEN = Slowest("b", 2, 2.0, 1.25), Slowest("b", 2, 1.02, 1.0)


def test_the_slowest_rank_and_its_host_are_found() -> None:
    slowest = find_slowest([1.0, 1.0, 3.0, 1.0], ["a", "a", "b", "b"])
    assert slowest == Slowest("b", 2, 3.0, 1.5)
    assert slowest.factor == 2.0


def report(tmp_path: Path) -> tuple[StragglerReport, Path]:
    path = tmp_path / "events.jsonl"
    return StragglerReport(OwnWork(torch.device("cpu")), ["a", "b"], 1.3, 30, EventLog(path)), path


def test_an_event_names_a_host_that_stays_slow_and_again_while_it_lasts(tmp_path: Path) -> None:
    stragglers, path = report(tmp_path)
    for step in range(10, 80, 10):
        stragglers.judge(SLOW, step, 10)
    rows = read_jsonl(path)
    assert [(row["event"], row["step"], row["host"], row["rank"], row["factor"]) for row in rows] == [
        ("straggler", 30, "b", 2, 1.6),
        ("straggler", 60, "b", 2, 1.6),
    ]


def test_a_host_that_recovers_in_between_or_changes_is_not_reported(tmp_path: Path) -> None:
    stragglers, path = report(tmp_path)
    other = Slowest("a", 0, 2.0, 1.25)
    for step, slowest in enumerate([SLOW, SLOW, EVEN, SLOW, SLOW, other, other, SLOW, SLOW]):
        stragglers.judge(slowest, step, 10)
    assert read_jsonl(path) == []


def test_own_work_is_the_time_within_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 3.0, 10.0, 10.5])
    monkeypatch.setattr("pokevla.training.health.stragglers.time.perf_counter", lambda: next(times))
    own = OwnWork(torch.device("cpu"))
    for _ in range(2):
        with own:
            pass
    assert own.take() == 2.5
    assert own.take() == 0.0


def test_one_rank_is_never_a_straggler(tmp_path: Path) -> None:
    own = OwnWork(torch.device("cpu"))
    with own:
        pass
    columns = StragglerReport(own, ["a"], 1.3, 1, EventLog(tmp_path / "events.jsonl")).take(step=1, steps=1)
    assert columns["step_s/mean"] == columns["step_s/max"] > 0
    assert read_jsonl(tmp_path / "events.jsonl") == []
