"""How a run is shown."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from monitoring.catalogue import list_runs, runs_table
from monitoring.dashboard import frame, line, sparkline
from monitoring.live import LiveRun
from monitoring.queue_state import QueueState
from tests.unit.monitoring.run_folders import append, event, make_run, save, train_line


def shown(renderable: object, width: int = 120) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(renderable)
    return out.getvalue()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run_dir = make_run(tmp_path / "runs" / "one")
    append(run_dir / "events.jsonl", event("started", 0, step=0), event("skipped", 70, step=12))
    append(run_dir / "metrics.jsonl", *(train_line(step, 2 * step, mfu=0.41) for step in range(10, 41, 10)))
    save(run_dir, 40)
    return run_dir


def test_the_frame_has_everything_to_know(run: Path) -> None:
    text = shown(frame(LiveRun(run).snapshot(None)))
    for part in (
        "step 40/100 (40 %)", "failed", "loss", "1.6", "lr", "0.001", "samples_per_s", "data_wait_share", "3.0 %",
        "mfu", "41 %", "rss_gib", "loss of the last 4 lines", "hosts: no heartbeat", "step 40", "complete",
        "skipped steps 1", "skipped step 12",
    ):  # fmt: skip
        assert part in text


@pytest.mark.parametrize("width", [60, 200])
def test_the_frame_fits_its_terminal(run: Path, width: int) -> None:
    assert max(map(len, shown(frame(LiveRun(run).snapshot(None)), width).splitlines())) <= width


def test_a_run_without_anything_can_be_shown(tmp_path: Path) -> None:
    snapshot = LiveRun(make_run(tmp_path / "two")).snapshot(None)
    assert "checkpoints: none yet" in shown(frame(snapshot))
    assert line(snapshot) == "new  step 0/100 (0.0 %)  never started"


def test_one_line_has_the_essentials(run: Path) -> None:
    text = line(LiveRun(run).snapshot(QueueState("7", "RUNNING", "job 7 RUNNING")))
    assert text == (
        "running  step 40/100 (40 %)  loss 1.6  lr 0.001  64 samples/s  wait 3.0 %  ends in 2 min 00 s  skipped 1"
    )


def test_the_curve_goes_from_low_to_high_and_marks_what_is_not_finite() -> None:
    assert sparkline([0.0, 0.5, None, 1.0]) == "▁▅×█"
    assert sparkline([3.0, 3.0]) == "▁▁"
    assert sparkline([None]) == "×"


def test_all_runs_below_a_folder_are_listed_and_an_unreadable_one_says_why(run: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    make_run(runs / "group" / "two")
    broken = make_run(runs / "broken")
    (broken / "recipe.yaml").write_text("kind: posttrain\nname: broken\nnonsense: 1\n")
    make_run(runs / "one" / "inside")  # nothing is looked for inside a run
    (runs / ".tmp-three").mkdir()
    snapshots = list_runs(runs, lambda run_dir: None)
    assert [(Path(row.run).name, row.state) for row in snapshots] == [
        ("broken", "unreadable"), ("two", "new"), ("one", "failed"),
    ]  # fmt: skip
    assert "nonsense" in snapshots[0].reason
    text = shown(runs_table(snapshots), width=200)
    assert "40/100" in text
    assert "never started" in text


def test_a_chained_job_that_was_cancelled_says_why_in_the_list(run: Path) -> None:
    job = QueueState("8", "CANCELLED", "job 8 CANCELLED: it waited for job 7 (cache), which ended as FAILED")
    (row,) = list_runs(run, lambda run_dir: job)
    assert (row.state, row.reason) == ("stopped", job.text)


def test_a_submitted_job_that_trains_nothing_is_listed_by_what_the_queue_says(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("kind: cache\nname: cache\ndataset: d\ncache: {root: c}\n")
    (folder / "slurm.json").touch()
    (row,) = list_runs(tmp_path, lambda run_dir: QueueState("7", "FAILED", "job 7 FAILED, exit code 3"))
    assert (row.kind, row.state, row.reason) == ("cache", "failed", "job 7 FAILED, exit code 3")
    assert "0/?" not in shown(runs_table([row]))
