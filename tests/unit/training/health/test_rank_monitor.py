"""The parent ends ranks that are silent for longer than any phase may last, and says that the disk is full."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pokevla.errors import HangError
from pokevla.training.health.rank_monitor import RankMonitor
from tests.conftest import SmallDisk


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def beat(run_dir: Path, at: float) -> None:
    path = run_dir / "heartbeat" / "rank_00000.json"
    path.parent.mkdir(exist_ok=True)
    path.touch()
    os.utime(path, (at, at))


def test_ranks_that_never_report_are_ended(tmp_path: Path) -> None:
    clock, monitor_says = Clock(), []
    monitor = RankMonitor(tmp_path, 100.0, monitor_says.append, clock)
    for clock.now in range(0, 225, 5):
        monitor.check()
    clock.now = 225
    with pytest.raises(HangError, match=r"No rank has written a heartbeat for 225 s.*pokevla resume"):
        monitor.check()
    assert monitor_says == []


def test_ranks_that_report_and_a_parent_that_was_suspended_are_left_alone(tmp_path: Path) -> None:
    clock = Clock()
    monitor = RankMonitor(tmp_path, 100.0, print, clock)
    for clock.now in range(0, 2000, 50):  # 50 s between two checks count as 10
        beat(tmp_path, clock.now)
        monitor.check()
    for clock.now in range(2000, 3000, 50):
        monitor.check()


def test_a_full_disk_is_said_once_and_is_no_hang(disk_to_fill: SmallDisk) -> None:
    clock, lines = Clock(), []
    monitor = RankMonitor(disk_to_fill.folder, 100.0, lines.append, clock)
    disk_to_fill.fill()
    for clock.now in range(0, 1000, 5):
        monitor.check()
    disk_to_fill.free()
    clock.now += 5
    monitor.check()
    assert [line.split(":")[0] for line in lines] == ["warning", lines[-1]]
    assert "is full: training goes on" in lines[0]
    assert "room" in lines[-1]
