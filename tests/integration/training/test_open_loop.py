"""`pokevla eval openloop` of a finished toy run: from the command to tables and plots."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pokevla.cli.main import run
from pokevla.data.dataset import open_dataset
from pokevla.evaluation.open_loop.frames import select_frames
from pokevla.policy.policy import Policy
from tests.toys import write_toy_questions


@pytest.fixture(scope="module")
def finished(whole_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(whole_run, tmp_path_factory.mktemp("open_loop") / "run"))


def test_errors_are_those_of_the_exported_policy(
    finished: Path, toy_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "result"
    command = ["eval", "openloop", str(finished), str(toy_dataset), "--out", str(out), "--plots", "1"]
    assert run([*command, "--batch-size", "4", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((out / "summary.json").read_text())
    assert (summary["episodes"], summary["split"]) == (2, "val")
    assert summary["predictors"]["constant action"]["relative_error"] == pytest.approx(1.0)
    assert not summary["beats_baselines"], "12 steps on random actions teach nothing"
    assert summary["labels"] == ["Fewer than five episodes: the intervals are too narrow."]

    table = pq.read_table(out / "frames.parquet")
    policy = Policy.from_pretrained(finished)
    frames = select_frames(open_dataset(toy_dataset), "val", policy.chunk_length, 500)
    assert table["key"].to_pylist() == [frames.key(index) for index in range(len(frames))]
    recorded = np.stack(table["recorded"].to_pylist()).reshape(frames.actions.shape)
    np.testing.assert_array_equal(recorded, frames.actions)
    predicted = np.stack(table["policy"].to_pylist()).reshape(frames.actions.shape)
    error = np.abs(predicted - recorded)[..., 0].mean() * 0.05
    assert summary["predictors"]["policy"]["by_column"]["position[0]"] == pytest.approx(error)
    with Image.open(out / "plots" / "episode-000004.png") as plot:
        assert plot.width > 800
        assert len(np.unique(np.asarray(plot))) > 20

    assert run(command) == 3, "an earlier result is kept"
    assert "add --overwrite" in capsys.readouterr().err
    assert run([*command, "--overwrite", "--horizon", "2"]) == 0
    shown = capsys.readouterr().out
    assert "The policy does not predict better than the constant action" in shown
    assert "position[0] (m)" in shown
    assert "gripper agrees" in shown


def test_what_cannot_be_compared_is_refused(
    finished: Path, toy_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = write_toy_questions(tmp_path / "questions", 20)
    out = ["--out", str(tmp_path / "result")]
    refusals = {
        (str(toy_dataset), "--split", "all"): "would know the answers",
        (str(toy_dataset), "--split", "train"): "would know the answers",
        (str(toy_dataset), "--split", "test"): "no sample of split `test`",
        (str(toy_dataset), "--horizon", "99"): "the policy predicts",
        (str(toy_dataset), "--statistics", "libero"): "of its own training only",
        (str(questions),): "dataset of questions",
        (str(tmp_path / "nothing"),): "is not a dataset",
    }
    for arguments, message in refusals.items():
        assert run(["eval", "openloop", str(finished), *arguments, *out]) in (2, 3), arguments
        assert message in capsys.readouterr().err
    assert not (tmp_path / "result").exists()
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "mine.txt").write_text("mine")
    assert run(["eval", "openloop", str(finished), str(toy_dataset), "--out", str(kept), "--overwrite"]) == 3
    assert (kept / "mine.txt").read_text() == "mine"
