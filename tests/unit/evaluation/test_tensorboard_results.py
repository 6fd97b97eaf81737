"""What an evaluation writes into TensorBoard, and where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pokevla.evaluation.drawing.videos import read_video, write_video
from pokevla.evaluation.tensorboard_results import publish_grounding, publish_trials
from pokevla.recipe.schema import EvalRecipe, GroundingRecipe

ROW = {"successes": 3, "trials": 4, "crashed": 1, "low": 0.3, "high": 0.95, "mean_steps": 80.0, "mask_iou": 0.6}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished training run of 40 steps that has curves."""
    run_dir = tmp_path / "runs" / "posttrain"
    (run_dir / "export").mkdir(parents=True)
    (run_dir / "recipe.yaml").touch()
    (run_dir / "export" / "model.safetensors").touch()
    (run_dir / "export" / "config.json").write_text(json.dumps({"step": 40}))
    return run_dir


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return events


def values(folder: Path) -> dict[str, tuple[int, float]]:
    events = read(folder)
    return {
        tag: (event.step, round(event.value, 4)) for tag in events.Tags()["scalars"] for event in events.Scalars(tag)
    }


def evaluation(tmp_path: Path, run: Path) -> tuple[EvalRecipe, dict[str, Any]]:
    policies = [
        {"name": "trained", "kind": "model", "run": str(run)},
        {"name": "trained-blind", "kind": "blanked", "run": str(run)},
    ]
    recipe = EvalRecipe.model_validate(
        {"kind": "eval", "name": "trials", "output": tmp_path / "runs", "policies": policies,
         "trials": {"suite": "libero_object", "tasks": [3]}}
    )  # fmt: skip
    task = {
        "suite": "libero_object",
        "index": 3,
        "policies": {"trained": ROW, "trained-blind": {"successes": 0, "trials": 0, "crashed": 5}},
    }
    blind = {**ROW, "successes": 0, "trials": 0, "low": 0.0, "high": 1.0, "mean_steps": None, "mask_iou": None}
    return recipe, {
        "policies": {"trained": ROW, "trained-blind": blind},
        "suites": {"libero_object": {"trained": ROW, "trained-blind": blind}},
        "tasks": [task],
    }


def test_a_trained_models_figures_stand_beside_its_curves_at_its_step(tmp_path: Path, run: Path) -> None:
    publish_trials(*evaluation(tmp_path, run))

    scalars = values(run / "tensorboard" / "eval" / "trials" / "trained")
    assert scalars["success_rate/all"] == scalars["success_rate/libero_object_task_3"] == (40, 0.75)
    assert scalars["success_rate/libero_object"] == (40, 0.75)
    assert (scalars["success_rate/low_95"], scalars["success_rate/high_95"]) == ((40, 0.3), (40, 0.95))
    assert (scalars["crashed"], scalars["mask_iou"]) == ((40, 1.0), (40, 0.6))


def test_others_stay_with_the_evaluation_and_crashes_are_no_failures(tmp_path: Path, run: Path) -> None:
    publish_trials(*evaluation(tmp_path, run))

    scalars = values(tmp_path / "runs" / "trials" / "tensorboard" / "trained-blind")
    assert scalars["crashed"] == (0, 1.0)
    assert not {"success_rate/all", "success_rate/libero_object_task_3", "mask_iou"} & scalars.keys()


def test_videos_go_to_their_policy(tmp_path: Path, run: Path) -> None:
    recipe, summary = evaluation(tmp_path, run)
    frames = [np.full((16, 32, 3), 40 * number, np.uint8) for number in range(4)]
    for name in ("trained-libero_object-t3-i30", "trained-blind-libero_object-t3-i30", "trained-t4-i30"):
        write_video(tmp_path / "runs" / "trials" / "videos" / f"{name}.mp4", frames, 3)

    publish_trials(recipe, summary)

    events = read(run / "tensorboard" / "eval" / "trials" / "trained")
    assert events.Tags()["images"] == ["trial/libero_object-t3-i30", "trial/t4-i30"]
    assert events.Images("trial/libero_object-t3-i30")[0].encoded_image_string[:6] == b"GIF89a"


def test_a_long_video_is_thinned_and_lasts_as_long(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [np.full((16, 32, 3), 10 * number, np.uint8) for number in range(20)], 3)
    frames, frames_per_second = read_video(tmp_path / "v.mp4", max_frames=5)
    assert len(frames) == 5
    assert frames[0].shape == (16, 32, 3)
    assert frames_per_second == pytest.approx(3 / 4)
    assert [int(frame.mean()) for frame in frames] == pytest.approx([0, 50, 100, 140, 190], abs=8)


def test_points_of_a_model_and_of_its_beginning(tmp_path: Path, run: Path) -> None:
    recipe = GroundingRecipe.model_validate(
        {"kind": "grounding", "name": "points", "output": tmp_path / "runs", "dataset": "d",
         "runs": {"before": None, "after": str(run)}}
    )  # fmt: skip
    row = {
        "point_accuracy": 0.5, "point_low": 0.4, "point_high": 0.6, "choice_accuracy": None, "distinct_points": 9,
        "unreadable": 0, "by_category": {"grounding": {"accuracy": 0.5}},
    }  # fmt: skip
    publish_grounding(recipe, {"before": {**row, "point_accuracy": 0.1}, "after": row})

    after = values(run / "tensorboard" / "eval" / "points" / "after")
    before = values(tmp_path / "runs" / "points" / "tensorboard" / "before")
    assert (before["point_accuracy/all"], after["point_accuracy/all"]) == ((0, 0.1), (40, 0.5))
    assert after["point_accuracy/grounding"] == (40, 0.5)
    assert "choice_accuracy" not in after


def test_videos_of_a_policy_of_any_name_are_found(tmp_path: Path, run: Path) -> None:
    recipe, summary = evaluation(tmp_path, run)
    named = recipe.policies[0].model_copy(update={"name": "trained [8]"})
    summary["policies"]["trained [8]"] = summary["policies"]["trained"]
    write_video(
        tmp_path / "runs" / "trials" / "videos" / "trained [8]-libero_object-t3-i30.mp4",
        [np.zeros((16, 32, 3), np.uint8)] * 2,
        3,
    )
    publish_trials(recipe.model_copy(update={"policies": [named]}), summary)
    folder = run / "tensorboard" / "eval" / "trials" / "trained [8]"
    assert read(folder).Tags()["images"] == ["trial/libero_object-t3-i30"]


def test_an_imported_model_has_no_step_of_a_training(tmp_path: Path) -> None:
    imported = tmp_path / "imported"
    imported.mkdir()
    (imported / "model.safetensors").touch()
    (imported / "config.json").write_text(json.dumps({"kind": "vla-adapter"}))
    (folder, _) = publish_trials(*evaluation(tmp_path, imported))
    assert folder == tmp_path / "runs" / "trials" / "tensorboard" / "trained"
    assert values(folder)["success_rate/all"] == (0, 0.75)
