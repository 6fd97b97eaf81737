"""From all heartbeats together: who is behind."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pokevla.errors import DataError
from pokevla.telemetry.heartbeat import (
    Heartbeat,
    beat,
    hang_report,
    is_lowest_reporting,
    lagging_ranks,
    read_heartbeats,
    remove_heartbeats,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
WELL = Heartbeat(0, "a", 100, 7, "backward", 300.0, 90, 10.0, (NOW - timedelta(seconds=4)).isoformat())


def write(run_dir: Path, rank: int, **changes: object) -> Heartbeat:
    fields = {"host": f"node{rank}", "step": 7, "phase": "backward", "phase_s": 3.0, "progress": 90, "every_s": 10.0}
    return beat(run_dir, rank=rank, **{**fields, **changes})  # pyright: ignore[reportArgumentType]


def test_what_is_written_is_read_by_rank(tmp_path: Path) -> None:
    written = [write(tmp_path, rank) for rank in (1, 0)]
    read = read_heartbeats(tmp_path)
    assert [replace(one, time="") for one in read] == [replace(one, time="") for one in written[::-1]]
    assert read_heartbeats(tmp_path / "nothing") == []


def test_a_silent_rank_is_behind() -> None:
    silent = replace(WELL, rank=1, host="b", time=(NOW - timedelta(seconds=40)).isoformat())
    (text,) = lagging_ranks([WELL, silent], NOW)
    assert text.startswith("rank 1 on b: no heartbeat for 40 s, last in backward after step 7")


def test_a_host_whose_clock_is_wrong_is_not_taken_for_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 0)
    monkeypatch.setattr("pokevla.telemetry.heartbeat.now", lambda: "2001-01-01T00:00:00+00:00")
    write(tmp_path, 1)
    assert lagging_ranks(read_heartbeats(tmp_path)) == []


@pytest.mark.parametrize(
    ("ahead_s", "verdict"), [(-500, "no rank is behind the others"), (500, "all ranks are silent")]
)
def test_the_clock_of_who_looks_may_be_wrong(tmp_path: Path, ahead_s: int, verdict: str) -> None:
    for rank in range(2):
        write(tmp_path, rank)
        path = tmp_path / "heartbeat" / f"rank_{rank:05d}.json"
        os.utime(path, (path.stat().st_mtime - ahead_s,) * 2)
    assert hang_report(tmp_path).splitlines()[2].startswith(verdict)


def test_among_ranks_that_live_the_least_progress_is_behind() -> None:
    stuck = replace(WELL, rank=2, host="c", phase="data", phase_s=301.0, progress=86)
    assert lagging_ranks([WELL, stuck, replace(WELL, rank=3)], NOW) == ["rank 2 on c: in data after step 7 for 301 s"]


def test_the_lowest_rank_that_is_heard_of_speaks_for_all() -> None:
    silent = replace(WELL, time=(NOW - timedelta(seconds=40)).isoformat())
    others = [replace(WELL, rank=1), replace(WELL, rank=2)]
    assert [is_lowest_reporting([WELL, *others], rank) for rank in range(3)] == [True, False, False]
    assert [is_lowest_reporting([silent, *others], rank) for rank in range(3)] == [False, True, False]
    assert is_lowest_reporting([], 5)


def test_ranks_at_the_same_place_and_ranks_that_have_ended_are_not_behind() -> None:
    ended = replace(WELL, rank=1, phase="finished", progress=2, time=(NOW - timedelta(days=1)).isoformat())
    assert lagging_ranks([WELL, replace(WELL, rank=2), ended], NOW) == []


def test_the_report_names_every_rank_the_one_behind_and_its_stacks(tmp_path: Path) -> None:
    write(tmp_path, 0)
    write(tmp_path, 1, phase="data", progress=80, phase_s=600.0)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "rank_00001.hang").write_text("stacks")
    lines = hang_report(tmp_path).splitlines()
    assert [line.split(":")[0].split(" (")[0] for line in lines[:2]] == ["rank 0 on node0", "rank 1 on node1"]
    assert lines[2] == "behind: rank 1 on node1: in data after step 7 for 600 s"
    assert lines[3] == f"stacks: {tmp_path / 'logs' / 'rank_00001.hang'}"


def test_a_run_without_heartbeats_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no heartbeats"):
        hang_report(tmp_path)
    write(tmp_path, 0)
    (tmp_path / "heartbeat" / "rank_00000.json").write_text("{")
    with pytest.raises(DataError, match=r"rank_00000.json is damaged: not JSON"):
        read_heartbeats(tmp_path)


def test_ranks_of_a_larger_job_before_are_forgotten(tmp_path: Path) -> None:
    for rank in range(4):
        write(tmp_path, rank)
    remove_heartbeats(tmp_path, world_size=2)
    assert [one.rank for one in read_heartbeats(tmp_path)] == [0, 1]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("phase_s", "1" + "0" * 369, "the number 1000"),
        ("phase_s", "NaN", "NaN is not a number"),
        ("progress", '""', "progress: Input should be a valid integer"),
        ("step", "true", "step: Input should be a valid integer"),
        ("host", "[" * 5000, "nested too deeply"),
    ],
)
def test_a_damaged_field_of_a_heartbeat_is_named(tmp_path: Path, field: str, value: str, reason: str) -> None:
    beat(tmp_path, rank=0, host="h", step=5, phase="forward", phase_s=1.0, progress=9, every_s=10.0)
    path = tmp_path / "heartbeat" / "rank_00000.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, field: "HERE"}).replace('"HERE"', value))

    with pytest.raises(DataError, match=rf"rank_00000.json is damaged: .*{reason}.* Delete it"):
        read_heartbeats(tmp_path)


def test_files_that_are_no_heartbeats_are_left_alone(tmp_path: Path) -> None:
    beat(tmp_path, rank=1, host="h", step=5, phase="forward", phase_s=1.0, progress=9, every_s=10.0)
    (tmp_path / "heartbeat" / "rank_x.json").write_text("{}")

    assert [one.rank for one in read_heartbeats(tmp_path)] == [1]
    remove_heartbeats(tmp_path, 1)
    assert [path.name for path in (tmp_path / "heartbeat").iterdir()] == ["rank_x.json"]
