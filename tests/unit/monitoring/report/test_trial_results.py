"""Rates by group, the radar and the gallery of failures, from records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from monitoring.report.page import write_report
from monitoring.report.trial_results import (
    FAILURES_PER_TASK,
    SHEETS_PER_TASK,
    breakdowns,
    failures,
    radar,
    sheets,
    tasks_shown,
)
from pokevla.evaluation.trial_records import TrialRecord, read_records, rewrite_records

NAMES = ("Camera Viewpoints", "Language Instructions", "Sensor Noise")


def record(policy: str = "ours", **changes: Any) -> TrialRecord:
    values = {"suite": "libero_goal", "task_index": 0, "task": "t", "trial": 0, "init_state_index": 0,
              "target_shift": None, "outcome": "success", "steps": 9, "queries": 2, "seconds": 1.0}  # fmt: skip
    return TrialRecord(policy=policy, **{**values, **changes})


def test_rates_are_shown_by_what_differs() -> None:
    records = [
        record(perturbation=name, level=level, outcome=outcome)
        for name, outcome in zip(NAMES, ("success", "failure", "crashed"), strict=True)
        for level in (1, 2)
    ]
    tables = {table["title"]: table["rows"] for table in breakdowns(records)}
    assert list(tables) == ["Perturbation", "Level of the perturbation"], "one suite needs no table"
    assert [(row["name"], row["successes"], row["trials"], row["crashed"]) for row in tables["Perturbation"]] == [
        (NAMES[0], 2, 2, 0), (NAMES[1], 0, 2, 0), (NAMES[2], 0, 0, 2),
    ]  # fmt: skip
    assert all(row["low"] <= row["rate"] <= row["high"] for row in tables["Level of the perturbation"])


def test_the_radar_reaches_the_rim_where_everything_is_solved() -> None:
    records = [record(policy, perturbation=name) for policy in ("ours", "theirs") for name in NAMES]
    records += [record("theirs", perturbation=name, outcome="failure") for name in NAMES]
    drawn = radar(records)
    assert drawn is not None
    rim = " ".join(f"{axis['x']:g},{axis['y']:g}" for axis in drawn["axes"])
    assert [polygon["points"] == rim for polygon in drawn["polygons"]] == [True, False]
    half = drawn["rings"][1]
    assert drawn["polygons"][1]["points"] == half
    assert radar([record(perturbation=NAMES[0]), record()]) is None


def test_the_gallery_has_a_few_failures_of_each_task(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.jpg")
    failed = [record(task_index=task, outcome="failure", picture="x.jpg") for task in (0, 0, 0, 0, 0, 1)]
    others = [
        record(picture="x.jpg"),
        record("blanked", outcome="failure", picture="x.jpg"),
        record(task_index=2, outcome="failure", picture="gone.jpg"),
    ]
    groups = failures(tmp_path, [*failed, *others], ["ours"])
    assert [(group["index"], group["failed"], len(group["pictures"])) for group in groups] == [
        (0, 5, FAILURES_PER_TASK), (1, 1, 1),
    ]  # fmt: skip


def test_sheets_are_grouped_by_task_wherever_their_part_of_the_evaluation_lies(tmp_path: Path) -> None:
    for place, task, states in (("", 0, range(4)), ("parts/libero_goal-01", 1, range(1))):
        (tmp_path / place / "pictures").mkdir(parents=True)
        for state in states:
            Image.new("RGB", (8, 8)).save(tmp_path / place / "pictures" / f"ours-libero_goal-t{task}-i{state:02d}.png")
    first = [record(init_state_index=state, video=f"videos/{state}.mp4") for state in range(4)]
    moved = record(task_index=1, video="parts/libero_goal-01/videos/x.mp4")
    others = [record("theirs"), record(task_index=2), record(task_index=1, init_state_index=7)]
    groups = sheets(tmp_path, [*first, *others, moved], ["ours"])
    assert [(group["index"], len(group["pictures"])) for group in groups] == [(0, SHEETS_PER_TASK), (1, 1)]
    assert groups[1]["pictures"][0]["record"] == moved


def test_the_page_shows_masks_over_time_and_loads_them_when_they_come_into_view(pipeline: Path) -> None:
    page = write_report([pipeline], pipeline / "report.html").read_text()
    section = page.split("<h3>Segmentation over time</h3>")[1].split("</section>")[0]
    assert section.count('loading="lazy"') == section.count("data:image/png;base64") == 1
    assert "solved after 120 steps, mask IoU 0.61" in section
    summary = json.loads((pipeline / "evaluation" / "summary.json").read_text())
    summary["policies"]["trained"]["mask_iou"] = None
    (pipeline / "evaluation" / "summary.json").write_text(json.dumps(summary))
    page = write_report([pipeline], pipeline / "report.html").read_text()
    assert "<h3>Trials over time</h3>" in page
    assert '<span class="key predicted">' not in page


def test_thousands_of_tasks_are_counted_and_not_listed() -> None:
    few = [{"suite": "s", "index": 0, "instruction": "go"}]
    assert tasks_shown({"tasks": few})["listed"] == few
    many = [{"suite": "s", "index": n, "instruction": "go", "perturbation": NAMES[n % 2]} for n in range(61)]
    shown = tasks_shown({"tasks": many})
    assert (shown["listed"], shown["by_perturbation"]) == ([], {NAMES[0]: 31, NAMES[1]: 30})


def test_the_page_shows_failures_and_loads_videos_when_they_come_into_view(pipeline: Path) -> None:
    evaluation = pipeline / "evaluation"
    (evaluation / "observations").mkdir()
    Image.new("RGB", (8, 8)).save(evaluation / "observations" / "first.jpg")
    records = read_records(evaluation / "episodes.jsonl")
    added = record("trained", suite="libero_object", task_index=3, outcome="failure", picture="observations/first.jpg")
    rewrite_records(evaluation / "episodes.jsonl", [*records, added])
    page = write_report([pipeline], pipeline / "report.html").read_text()
    assert "<h3>Failures</h3>" in page
    assert "data:image/jpeg;base64" in page
    assert '<video data-src="data:video/mp4;base64' in page
    assert "<h3>Suite</h3>" not in page
