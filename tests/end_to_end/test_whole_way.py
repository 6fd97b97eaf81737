"""From the simulator to the report, through the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.simulator


def test_summary_has_every_figure_the_issue_names(whole_way: Path):
    summary = json.loads((whole_way / "summary.json").read_text())
    assert set(summary) >= {"stages", "posttrain", "pretrain", "evaluation", "peak_memory_gib"}
    assert set(summary["stages"]) >= {"demos", "scenes", "pretrain", "cache", "posttrain", "grounding", "evaluation"}
    assert all(seconds > 0 for seconds in summary["stages"].values())
    assert summary["posttrain"]["loss_first"] > 0
    assert summary["posttrain"]["loss_last"] > 0
    for key in ("point_accuracy_before", "point_accuracy_after"):
        assert 0.0 <= summary["pretrain"][key] <= 1.0
    for policy in ("trained", "untrained", "replay", "blanked"):
        assert summary["evaluation"][policy]["trials"] == 2
        assert 0 <= summary["evaluation"][policy]["successes"] <= 2
    assert 0.1 < summary["peak_memory_gib"] < 16


def test_report_is_self_contained(whole_way: Path):
    page = (whole_way / "report.html").read_text()
    assert page.count("<polyline") > 3  # curves
    for kind in ("image/png", "video/mp4"):  # frames with masks, trials
        assert f"data:{kind};base64," in page
    assert not re.search(r"(src|href)\s*=\s*[\"']https?:", page)


def test_demo_run_again_does_nothing(whole_way: Path, pokevla, recipes: Path):
    before = (whole_way / "stages.json").read_text()
    result = pokevla("demo", recipes / "demo.yaml")
    assert result.returncode == 0, result.stderr
    assert (whole_way / "stages.json").read_text() == before


def test_each_loss_and_its_gradient_norm_is_logged(whole_way: Path):
    lines = [json.loads(line) for line in (whole_way / "posttrain" / "metrics.jsonl").read_text().splitlines()]
    seen = set().union(*lines)
    assert seen >= {"loss", "loss/action", "loss/segmentation", "loss/geometry", "lr", "samples_per_s", "rss_gib"}
    assert {"grad_norm/action", "grad_norm/segmentation", "grad_norm/geometry"} <= seen


def test_evaluation_leaves_records_intervals_videos_and_pictures(whole_way: Path):
    folder = whole_way / "evaluation"
    records = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    assert {record["policy"] for record in records} == {"trained", "untrained", "replay", "blanked"}
    assert {record["outcome"] for record in records} <= {"success", "failure"}
    assert all(record["steps"] <= 24 and record["error"] is None for record in records)
    for name, row in json.loads((folder / "summary.json").read_text())["policies"].items():
        assert 0 <= row["low"] <= row["successes"] / row["trials"] <= row["high"] <= 1, name
        assert row["high"] - row["low"] > 0.5, "two trials tell little"
    watched = {record["policy"]: record for record in records if record["video"] is not None}
    assert {"trained", "untrained"} <= set(watched)
    assert 0 <= watched["trained"]["mask_iou"] <= 1
    for record in watched.values():
        assert (folder / record["video"]).stat().st_size > 500
    assert {path.stem for path in (folder / "pictures").glob("*.png")} == {
        Path(record["video"]).stem for record in watched.values()
    }
    assert len(list((folder / "videos").iterdir())) == len(watched)


def test_the_policy_says_what_it_was_trained_on_and_is_evaluated_with(whole_way: Path, pokevla, recipes: Path):
    config = json.loads((whole_way / "posttrain" / "export" / "config.json").read_text())
    assert config["trained_on"] == {"image_size": [64], "fast_rendering": [True], "instructions": ["task"]}
    valid = pokevla("validate", recipes / "evaluation.yaml")
    assert valid.returncode == 0, valid.stderr
    assert "trained" not in valid.stdout.split("evaluation)", 1)[-1], "no note about what the policies were trained on"
    refused = pokevla("validate", recipes / "evaluation.yaml", "image_size=128")
    assert refused.returncode == 2
    assert "trained was trained with image_size 64, these trials have 128" in refused.stderr
    assert "accept_differences=[image_size]" in refused.stderr


def test_a_trial_and_a_stored_episode_are_explained(whole_way: Path, pokevla, tmp_path: Path):
    run = whole_way / "posttrain"
    small = ("--image-size", "64", "--fast-rendering", "--max-steps", "16", "--out", tmp_path)
    result = pokevla("explain", run, "--suite", "libero_object", "--task", "3", "--init-state", "30", *small)
    assert result.returncode == 0, result.stderr
    assert re.search(r"3 moments, mean mask IoU 0\.\d\d", result.stdout), result.stdout
    result = pokevla("explain", run, "--dataset", whole_way / "robot", "--every", "8", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    names = {path.name for path in tmp_path.iterdir()}
    trial = "libero_object-t3-i30"
    assert names == {f"{name}.{kind}" for name in (trial, "episode-0000") for kind in ("png", "mp4")}


def test_exported_model_needs_nothing_else(whole_way: Path):
    names = {path.name for path in (whole_way / "posttrain" / "export").iterdir()}
    assert names >= {"model.safetensors", "config.json", "tokenizer", "statistics.json", "README.md"}


def test_inspection_commands_read_what_was_made(whole_way: Path, pokevla, recipes: Path):
    for arguments in (
        ("data", "show", whole_way / "robot"),
        ("data", "stats", whole_way / "vlm"),
        ("data", "verify", whole_way / "robot"),
        ("cache", "info", recipes / "posttrain.yaml"),
        ("cache", "verify", recipes / "posttrain.yaml"),
        ("ckpt", "inspect", whole_way / "posttrain"),
        ("validate", recipes / "posttrain.yaml"),
    ):
        result = pokevla(*arguments)
        assert result.returncode == 0, f"{arguments}: {result.stderr}"
        assert result.stdout.strip(), arguments


def test_finished_run_says_so(whole_way: Path, pokevla):
    result = pokevla("resume", whole_way / "posttrain")
    assert result.returncode == 0
    assert "finished" in result.stdout
