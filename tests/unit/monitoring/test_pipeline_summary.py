import json
from pathlib import Path

import pytest

from monitoring.pipeline_summary import beats_all, build_summary, read_metrics, verdict, write_summary
from pokevla.errors import DataError


def test_summary_is_computed_from_the_files_of_the_stages(pipeline: Path) -> None:
    summary = build_summary(pipeline)
    assert summary["stages"] == {"demos": 200.5, "posttrain": 400.0}
    assert summary["pretrain"] == {"point_accuracy_before": 0.0, "point_accuracy_after": 0.75}
    assert summary["posttrain"] == pytest.approx({"loss_first": 1.4, "loss_last": 0.5})
    assert set(summary["evaluation"]) == {"trained", "untrained", "replay", "blanked"}
    assert {key: summary["evaluation"]["replay"][key] for key in ("successes", "trials")} == {
        "successes": 4,
        "trials": 20,
    }
    assert summary["peak_memory_gib"] == 4.25


def test_the_file_holds_what_was_computed(pipeline: Path) -> None:
    assert write_summary(pipeline) == json.loads((pipeline / "summary.json").read_text())


def test_verdict_needs_more_than_every_other(pipeline: Path) -> None:
    summary = build_summary(pipeline)
    assert beats_all(summary) is True
    assert verdict(summary).startswith("Does the trained policy beat all others? Yes")
    summary["evaluation"]["blanked"]["successes"] = 12
    assert beats_all(summary) is False


def test_no_evaluation_no_verdict(pipeline: Path) -> None:
    (pipeline / "evaluation" / "summary.json").unlink()
    summary = build_summary(pipeline)
    assert "evaluation" not in summary
    assert verdict(summary).startswith("No verdict")


def test_after_a_resume_the_later_line_of_a_step_counts(tmp_path: Path) -> None:
    lines = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "loss": 1.0}, {"event": "resume"}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "lo')
    assert [row["loss"] for row in read_metrics(tmp_path)] == [3.0, 1.0]


def test_a_damaged_summary_is_named(pipeline: Path) -> None:
    (pipeline / "grounding" / "summary.json").write_text("{")
    with pytest.raises(DataError, match=r"grounding/summary\.json"):
        build_summary(pipeline)


@pytest.mark.parametrize("content", ["{", "[]", '{"stages": 5}', '{"stages": [{"name": "a"}]}', '{"stages": [5]}'])
def test_damaged_stages_are_named(pipeline: Path, content: str) -> None:
    (pipeline / "stages.json").write_text(content)
    with pytest.raises(DataError, match=r"stages\.json is damaged"):
        build_summary(pipeline)
