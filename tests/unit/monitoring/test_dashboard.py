"""How a run is shown."""

from __future__ import annotations

import io
import json
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


WHOLE = (
    "step 40/100 (40 %)", "lr 0.001", "gradient norm 1.5", "64 samples/s", "0.5 s a step",
    "3.0 % waiting for data", "MFU 41 %", "memory 1.2 GiB", "no heartbeat", "step 40", "0.0 MiB", "complete",
    "1 steps skipped", "0 restarts", "0 damaged checkpoints", "skipped step 12",
)  # fmt: skip


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_frame_fits_its_terminal_and_shortens_nothing(run: Path, width: int) -> None:
    text = shown(frame(LiveRun(run).snapshot(None), width), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert [figure for figure in WHOLE if figure not in text] == []


def test_a_long_path_and_long_names_are_wrapped_and_whole(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / ("a_long_folder_" * 6) / "run_1234567890")
    append(run_dir / "metrics.jsonl", train_line(123456, 10, **{"loss/some_part_with_a_long_name": 1.25e-9}))
    text = shown(frame(LiveRun(run_dir).snapshot(None), 60), 60)
    joined = "".join(row.strip("│╭╮╰╯─ ") for row in text.splitlines())
    assert run_dir.name in joined
    assert "some_part_with_a_long_name" in text
    assert "1.25e-09" in text
    assert "step 123456/100" in text


def test_losses_that_fit_no_table_are_shown_line_by_line(run: Path) -> None:
    values = {f"{prefix}loss/an_extremely_long_name_of_a_loss": -1.25e-07 for prefix in ("", "val/", "val_swapped/")}
    append(run / "metrics.jsonl", {**train_line(40, 80), "val/loss": 1.0, "val_swapped/loss": 2.0, **values})
    text = shown(frame(LiveRun(run).snapshot(None), 60), 60)
    assert "held out 1" in text
    assert text.count("-1.25e-07") == 3


def test_a_number_of_an_event_stays_with_its_name(run: Path) -> None:
    append(run / "events.jsonl", event("saved", 80, step=625, position=20000, save_s=0.292, size_bytes=27368791))
    rows = [row.strip("│ ") for row in shown(frame(LiveRun(run).snapshot(None), 60), 60).splitlines()]
    assert not [row for row in rows if row.endswith(("position", "save_s", "size_bytes"))]


def test_a_low_terminal_loses_old_events_and_nothing_else(run: Path) -> None:
    append(run / "events.jsonl", *(event("skipped", 71 + step, step=step) for step in range(20, 28)))
    snapshot = LiveRun(run).snapshot(None)
    whole = shown(frame(snapshot, 80), 80).splitlines()
    low = shown(frame(snapshot, 80, len(whole) - 3), 80).splitlines()
    assert len(low) == len(whole) - 3
    assert [row for row in whole if row not in low] == [row for row in whole if "skipped step 2" in row][:3]
    assert "skipped step 27" in low[-2]


def test_a_run_without_anything_can_be_shown(tmp_path: Path) -> None:
    snapshot = LiveRun(make_run(tmp_path / "two")).snapshot(None)
    assert "no checkpoint yet" in shown(frame(snapshot, 80))
    assert line(snapshot) == "new  step 0/100 (0.0 %)  never started"


def test_one_line_has_the_essentials(run: Path) -> None:
    text = line(LiveRun(run).snapshot(QueueState("7", "RUNNING", "job 7 RUNNING")))
    assert text == (
        "running  step 40/100 (40 %)  loss 1.6  lr 0.001  64 samples/s  wait 3.0 %  ETA 2 min 00 s  skipped 1"
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
    text = shown(runs_table(snapshots), width=1000)
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


def test_an_evaluation_is_one_line_with_the_rate_of_every_policy(tmp_path: Path) -> None:
    folder = tmp_path / "trials [a]"
    folder.mkdir()
    (folder / "episodes.jsonl").write_text("{}\n" * 41)
    (row,) = list_runs(tmp_path, lambda run_dir: None)
    assert (row.kind, row.state, row.step, row.results) == ("eval", "unfinished", 41, [])
    counts = {"crashed": 0, "low": 0.1, "high": 0.9}
    policies = {"trained": {"successes": 19, "trials": 20, **counts},
                "blind": {"successes": 0, "trials": 20, **counts, "crashed": 1}}  # fmt: skip
    (folder / "summary.json").write_text(json.dumps({"policies": policies}))
    (row,) = list_runs(tmp_path, lambda run_dir: None)
    assert (row.state, [result["rate"] for result in row.results]) == ("finished", [0.95, 0.0])
    (_, line_of_it) = shown(runs_table([row]), width=1000).splitlines()
    assert "trials [a]" in line_of_it
    assert "41 trials" in line_of_it
    assert "trained 19/20 (95 %), blind 0/20 (0 %), 1 crashed" in line_of_it


def test_a_grounding_is_listed_by_its_points(tmp_path: Path) -> None:
    folder = tmp_path / "grounding"
    folder.mkdir()
    (folder / "answers.jsonl").write_text("{}\n" * 4)
    figures = {"point_accuracy": 0.5, "point_low": 0.2, "point_high": 0.8, "point_questions": 4}
    (folder / "summary.json").write_text(json.dumps({"after": figures}))
    (row,) = list_runs(tmp_path, lambda run_dir: None)
    assert (row.kind, row.results[0]["successes"]) == ("grounding", 2)
