"""A checkpoint that a thread writes is complete or absent like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pokevla.checkpoint.background import PendingCheckpoint
from pokevla.checkpoint.staging import StagingBuffer
from pokevla.checkpoint.store import begin
from pokevla.checkpoint.writer import RecordingWriter
from pokevla.errors import CheckpointError
from pokevla.runs.checkpoints import CheckpointInfo, list_checkpoints
from pokevla.runs.verification import verify

INFO = CheckpointInfo(7, 56, 1, 2, "fp32", "a", "b")
STATE = {"weights.pt": {"w": torch.arange(5000.0)}, "moments.pt": {"m": torch.ones(3), "step": 4}}


def pending(run_dir: Path, error: CheckpointError | None = None) -> PendingCheckpoint:
    """Two files in memory, on their way."""
    folder = begin(run_dir, INFO.step, is_main=True)
    writer = RecordingWriter(folder, StagingBuffer())
    for name, content in STATE.items():
        writer.save(content, str(folder / "state" / name))
    assert writer.error is None
    assert writer.buffer is not None
    assert list((folder / "state").iterdir()) == []
    return PendingCheckpoint(run_dir, INFO, writer.buffer, error, is_main=True)


def test_nothing_counts_before_it_is_finished(tmp_path: Path) -> None:
    checkpoint = pending(tmp_path)
    checkpoint._thread.join()
    assert checkpoint.is_written()
    assert list_checkpoints(tmp_path) == []  # where a crash would leave the run

    info = checkpoint.finish()

    assert checkpoint.written_s > 0
    ((step, folder),) = list_checkpoints(tmp_path)
    assert step == 7
    assert verify(folder) == info
    for name, content in STATE.items():
        stored = torch.load(folder / "state" / name, weights_only=True)
        assert json.dumps(stored, default=torch.Tensor.tolist) == json.dumps(content, default=torch.Tensor.tolist)


def test_a_change_after_the_snapshot_does_not_reach_the_file(tmp_path: Path) -> None:
    buffer, weights = StagingBuffer(), torch.zeros(4)
    folder = begin(tmp_path, INFO.step, is_main=True)
    RecordingWriter(folder, buffer).save({"w": weights}, str(folder / "state" / "w.pt"))
    weights.fill_(9.0)
    PendingCheckpoint(tmp_path, INFO, buffer, None, is_main=True).finish()
    ((_, complete),) = list_checkpoints(tmp_path)
    assert torch.load(complete / "state" / "w.pt", weights_only=True)["w"].tolist() == [0.0] * 4


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no memory"):
        pending(tmp_path, CheckpointError("no memory")).finish()
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder = begin(tmp_path, INFO.step, is_main=True)
    buffer = StagingBuffer()
    RecordingWriter(folder, buffer).save({}, str(folder / "state" / "w.pt"))
    (folder / "state").rename(folder / "elsewhere")
    with pytest.raises(CheckpointError, match=r"Cannot write .*w\.pt"):
        PendingCheckpoint(tmp_path, INFO, buffer, None, is_main=True).finish()
    assert list((tmp_path / "checkpoints").iterdir()) == []
