"""A rank without progress is detected, named and ended; one with progress is not."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pokevla.distributed.environment import RankInfo
from pokevla.errors import HangError, Requeued
from pokevla.telemetry.heartbeat import beat, read_heartbeats
from pokevla.training.health import watchdog
from pokevla.training.health.pulse import Pulse
from pokevla.training.health.watchdog import Watchdog
from tests.conftest import SmallDisk

WAIT_S = 60.0


@pytest.fixture(autouse=True)
def no_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "LINGER_S", 0.0)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_a_rank_that_stands_still_dumps_its_stacks_says_where_and_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports: list[HangError] = []
    ended: list[int] = []
    over = threading.Event()

    def end(code: int) -> None:
        ended.append(code)
        over.set()

    pulse = Pulse(start_timeout_s=0.1, step_timeout_s=0.1)
    with Watchdog(tmp_path, RankInfo(1, 2, 1), pulse, reports.append, end), pulse.phase("data"):
        assert over.wait(WAIT_S)
    assert ended == [HangError.exit_code] == [4]
    assert "rank 1 on" in str(reports[0])
    assert "in data for" in str(reports[0])
    stacks = (tmp_path / "logs" / "rank_00001.hang").read_text()
    assert "test_a_rank_that_stands_still" in stacks, "the stack of the thread that hangs"
    assert str(reports[0]) == capsys.readouterr().err.splitlines()[-1], "the last line of its output says why"


def test_a_rank_that_hangs_on_a_full_disk_ends_all_the_same(
    disk_to_fill: SmallDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    (disk_to_fill.folder / "heartbeat").mkdir()
    (disk_to_fill.folder / "heartbeat" / "rank_00000.json").write_text("{half a heartb")
    disk_to_fill.fill()
    ended: list[int] = []
    over = threading.Event()

    def end(code: int) -> None:
        ended.append(code)
        over.set()

    pulse = Pulse(start_timeout_s=0.1, step_timeout_s=0.1)
    with Watchdog(disk_to_fill.folder, RankInfo(1, 2, 1), pulse, end=end), pulse.phase("save"):
        assert over.wait(WAIT_S)
    assert ended == [HangError.exit_code]
    assert "in save for" in capsys.readouterr().err


def test_a_rank_that_moves_is_left_alone(tmp_path: Path) -> None:
    ended: list[int] = []
    pulse = Pulse(start_timeout_s=WAIT_S, step_timeout_s=WAIT_S)
    pulse.limit_s = 1.0
    start = time.monotonic()
    with Watchdog(tmp_path, RankInfo(0, 1, 0), pulse, end=ended.append):
        while time.monotonic() < start + 3 * pulse.limit_s:
            with pulse.phase("forward"):
                time.sleep(0.01)
    assert ended == []


def test_the_rank_behind_is_named_by_the_one_that_waits(tmp_path: Path) -> None:
    reports: list[HangError] = []
    over = threading.Event()
    beat(tmp_path, rank=1, host="node7", step=3, phase="data", phase_s=99.0, progress=0, every_s=1e9)
    pulse = Pulse(2.0, 2.0)  # heartbeats have a resolution of one second
    with Watchdog(tmp_path, RankInfo(0, 2, 0), pulse, reports.append, lambda _code: over.set()):
        pulse.step_done(4)
        assert over.wait(WAIT_S)
    assert "Behind: rank 1 on node7: in data after step 3 for 99 s" in str(reports[0])


def test_heartbeats_come_by_themselves_and_tell_how_it_ended(tmp_path: Path) -> None:
    beat(tmp_path, rank=7, host="gone", step=3, phase="data", phase_s=0.0, progress=0, every_s=1.0)
    pulse = Pulse(WAIT_S, 0.1)
    with Watchdog(tmp_path, RankInfo(0, 1, 0), pulse):
        with pulse.phase("forward"):
            until(lambda: [one.phase for one in read_heartbeats(tmp_path)] == ["forward"])
        pulse.step = 5
        until(lambda: read_heartbeats(tmp_path)[0].step == 5)
    assert read_heartbeats(tmp_path)[0].phase == "finished"
    with pytest.raises(Requeued), Watchdog(tmp_path, RankInfo(0, 1, 0), pulse):
        raise Requeued("saved")
    content = json.loads((tmp_path / "heartbeat" / "rank_00000.json").read_text())
    assert {"rank", "host", "step", "phase", "time"} <= set(content)
    assert content["phase"] == "stopped"


def test_a_heartbeat_that_cannot_be_written_does_not_end_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "heartbeat").write_text("a file where the folder should be")
    with Watchdog(tmp_path, RankInfo(1, 2, 1), Pulse(WAIT_S, 0.1)) as dog:
        until(lambda: any("no heartbeat" in record.message for record in caplog.records))
    assert dog.pulse.name == "finished"
