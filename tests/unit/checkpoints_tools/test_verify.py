"""Verifying names every damaged file, not the first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from checkpoints_tools.inspect import good_steps_after, inspect_run
from checkpoints_tools.verify import unfinished, verify_run
from pokevla.cli.main import run as run_command
from pokevla.errors import CheckpointError, UsageError
from pokevla.runs.checkpoints import HEALTHY, MARKER, STATE

Put = Callable[[int], Path]


def test_whole_checkpoints_are_good(run_dir: Path, put: Put) -> None:
    put(1), put(2)
    results = verify_run(run_dir)
    assert [(result.step, result.is_good, result.files) for result in results] == [(1, True, 2), (2, True, 2)]


def test_each_kind_of_damage_is_told_for_each_file(run_dir: Path, put: Put) -> None:
    put(1)
    state = put(2) / STATE
    (state / "one.pt").write_bytes(b"W" + (state / "one.pt").read_bytes()[1:])
    (state / "two.pt").unlink()
    good, bad = verify_run(run_dir)
    assert good.is_good
    assert len(bad.damaged) == 2
    assert "one.pt is damaged: its checksum differs" in bad.damaged[0]
    assert "two.pt is missing" in bad.damaged[1]


def test_a_truncated_file_and_a_bad_marker_are_told(run_dir: Path, put: Put) -> None:
    state = put(1) / STATE
    (state / "one.pt").write_bytes(b"short")
    (put(2) / MARKER).write_text("{")
    first, second = verify_run(run_dir)
    assert "one.pt has 5 bytes instead of" in first.damaged[0]
    assert "COMPLETE.json is damaged: not JSON" in second.damaged[0]


def test_one_checkpoint_may_be_named_by_step_or_folder(run_dir: Path, put: Put) -> None:
    put(1)
    folder = put(2)
    assert [result.step for result in verify_run(run_dir, 1)] == [1]
    assert [result.step for result in verify_run(folder)] == [2]


def test_a_half_deleted_checkpoint_is_refused_when_named_and_listed_otherwise(run_dir: Path, put: Put) -> None:
    put(1)
    folder = put(2)
    (folder / MARKER).unlink()
    with pytest.raises(CheckpointError, match="partly deleted"):
        verify_run(folder)
    assert [result.step for result in verify_run(run_dir)] == [1]
    assert unfinished(run_dir) == [folder]


def test_a_run_without_checkpoints_and_a_folder_that_is_no_run_are_refused(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no complete checkpoint"):
        verify_run(run_dir)
    with pytest.raises(UsageError, match="not a run directory"):
        verify_run(tmp_path)


def test_the_command_exits_with_3_and_one_line(run_dir: Path, put: Put, capsys: pytest.CaptureFixture[str]) -> None:
    put(1)
    assert run_command(["ckpt", "verify", str(run_dir)]) == 0
    (put(2) / STATE / "two.pt").unlink()
    capsys.readouterr()
    assert run_command(["ckpt", "verify", str(run_dir)]) == 3
    captured = capsys.readouterr()
    assert "step 1: good" in captured.out
    assert captured.err.count("error:") == 1
    assert "1 of 2 checkpoints" in captured.err


def test_inspect_lists_damage_and_health(run_dir: Path, put: Put) -> None:
    (put(10) / HEALTHY).write_text("30\n")
    (put(20) / STATE / "two.pt").unlink()
    (put(30) / MARKER).write_text("{")
    rows = inspect_run(run_dir)["checkpoints"]
    assert [row["step"] for row in rows] == [10, 20, 30]
    assert rows[0]["state"] == "good"
    assert (rows[0]["position"], rows[0]["healthy"]) == (80, True)
    assert rows[1]["state"].startswith("damaged:")
    assert "two.pt is missing" in rows[1]["state"]
    assert "is damaged: not JSON" in rows[2]["state"]


def test_the_final_checkpoint_of_a_finished_run_raises_no_alarm(
    run_dir: Path, put: Put, capsys: pytest.CaptureFixture[str]
) -> None:
    (put(10) / HEALTHY).write_text("30\n")
    put(30)
    (run_dir / "metrics.jsonl").write_text(json.dumps({"step": 30, "loss": 1.0}) + "\n")
    (run_dir / "export").mkdir()
    (run_dir / "export" / "config.json").touch()
    assert run_command(["ckpt", "inspect", str(run_dir)]) == 0
    first, last = capsys.readouterr().out.splitlines()[1:]
    assert first.rstrip().endswith("well: 20 good steps followed")
    assert last.rstrip().endswith("finished with this one")


def test_skipped_steps_do_not_count_as_good_ones(run_dir: Path) -> None:
    lines = [{"step": step, "loss": 1.0} for step in (10, 20, 30)] + [{"step": 40, "val/loss": 1.0}]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    events = [{"event": "skipped", "step": step} for step in (5, 12, 25, 99)] + [{"event": "resumed", "step": 21}]
    (run_dir / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in events))
    assert good_steps_after(run_dir, 10) == 20 - 2
    assert good_steps_after(run_dir, 30) == 0


def test_a_run_that_has_logged_nothing_has_no_good_steps(run_dir: Path) -> None:
    assert good_steps_after(run_dir, 0) == 0
