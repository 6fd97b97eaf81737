"""What a person may name, and what is said when it is not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from checkpoints_tools.source import CheckpointSource, WeightsSource, open_checkpoint_source, open_source
from pokevla.errors import CheckpointError, UsageError
from pokevla.runs.checkpoints import MARKER, STATE

Put = Callable[[int], Path]


def test_a_run_means_its_newest_whole_checkpoint(run_dir: Path, put: Put) -> None:
    put(1), put(2)
    (put(3) / STATE / "one.pt").unlink()
    messages: list[str] = []
    source = open_checkpoint_source(run_dir, on_damage=messages.append)
    assert (source.info.step, source.run_dir) == (2, run_dir)
    assert len(messages) == 1
    assert "step-00000003" in messages[0]


def test_a_step_and_a_folder_name_one_checkpoint(run_dir: Path, put: Put) -> None:
    folder = put(1)
    put(2)
    for source in (open_checkpoint_source(run_dir, 1), open_checkpoint_source(folder), open_source(folder)):
        assert isinstance(source, CheckpointSource)
        assert (source.folder, source.info.step, source.recipe.name) == (folder, 1, "toy")


def test_a_folder_of_weights_is_known_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert open_source(tmp_path) == WeightsSource(tmp_path)


def test_a_damaged_checkpoint_that_was_named_is_refused(run_dir: Path, put: Put) -> None:
    put(1)
    (put(2) / STATE / "one.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"one\.pt has 1 bytes"):
        open_checkpoint_source(run_dir, 2)


def test_a_half_deleted_one_and_a_step_that_is_not_there_are_told_apart(run_dir: Path, put: Put) -> None:
    put(1)
    (put(2) / MARKER).unlink()
    with pytest.raises(CheckpointError, match=r"partly deleted\. Complete ones: 1"):
        open_checkpoint_source(run_dir, 2)
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 3\. Complete ones: 1"):
        open_checkpoint_source(run_dir, 3)


@pytest.mark.parametrize("name", ["nowhere", "empty", "step-x"])
def test_what_is_neither_run_nor_checkpoint_nor_weights_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "checkpoints" / "step-x").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    path = tmp_path / "checkpoints" / name if name == "step-x" else tmp_path / name
    with pytest.raises(UsageError):
        open_source(path)


def test_a_step_beside_another_checkpoints_folder_is_refused(run_dir: Path, put: Put) -> None:
    folder = put(1)
    with pytest.raises(UsageError, match="Use only one of them"):
        open_checkpoint_source(folder, 2)
