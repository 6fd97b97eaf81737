"""The section about an open-loop evaluation, and what a report says of losses that are off."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from monitoring.report.inputs import read_inputs, warnings_of
from monitoring.report.page import write_report
from pokevla.evaluation.open_loop.errors import Column
from pokevla.evaluation.open_loop.plots import plot_episode

PREDICTOR = {
    "relative_error": 0.4995, "low": 0.371, "high": 0.616, "by_column": {"joint[0]": 0.01234}, "by_horizon": [0.4, 0.6],
    "gripper_agreement": 0.981,
}  # fmt: skip


def test_it_shows_errors_beside_the_baselines_and_the_plots(tmp_path: Path) -> None:
    folder = tmp_path / "openloop"
    column = Column("joint[0]", "rad", 1.0)
    plot_episode(folder / "plots/episode-000007.png", "grasp <it>", [column], np.zeros((9, 1)), [(2, np.ones((4, 1)))])
    summary = {
        "kind": "open_loop", "run": "/runs/<mine>", "dataset": "/data/arm", "split": "val", "frames": 60,
        "episodes": 11, "horizon": 2, "columns": [{"name": "joint[0]", "unit": "rad"}],
        "labels": ["Fewer than five episodes."],
        "predictors": {"policy": PREDICTOR, "constant action": {**PREDICTOR, "gripper_agreement": None}},
        "gains": {"constant action": {"low": -0.01}, "nearest neighbour": {"low": 0.1}}, "beats_baselines": False,
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    page = write_report([folder], tmp_path / "report.html").read_text()
    assert "&lt;mine&gt; on 60 frames of 11 episodes of arm (split val)" in page
    assert "The policy does not predict better than the constant action." in page
    assert "joint[0] (rad)" in page
    assert "0.499</td>" in page or "0.500</td>" in page
    assert "98.1 %" in page
    assert "0.40, 0.60." in page
    assert page.count("data:image/png;base64") == 1


def test_losses_that_are_off_are_named(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").touch()
    (run / "recipe.yaml").write_text(
        "kind: posttrain\nname: run\ndata: {datasets: [{path: d}]}\noptim: {lr: 1.0e-4}\nbatch: {global: 8, micro: 8}\n"
        "steps: 10\nloss: {segmentation: {weight: 0}, geometry: 0}\n"
    )
    labels = " ".join(warnings_of(read_inputs([run])))
    assert "was trained without target masks and geometry alignment" in labels
