"""A save that passes through a node-local disk is complete or absent like any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from pokevla.checkpoint.catalogue import STATE, CheckpointInfo, list_checkpoints, verify
from pokevla.checkpoint.files import describe_file
from pokevla.checkpoint.staging import StagedCheckpoint, remove_leftovers, stage_folder
from pokevla.checkpoint.store import begin
from pokevla.errors import CheckpointError

INFO = CheckpointInfo(7, 56, 1, 2, "fp32", "a", "b")


def stage(tmp_path: Path, *, spoil: bool = False) -> StagedCheckpoint:
    """A snapshot of two files, its copy begun."""
    folder = stage_folder(tmp_path / "local", tmp_path, rank=0)
    (folder / STATE).mkdir(parents=True)
    files = []
    for name in ("weights.pt", "moments.pt"):
        (folder / STATE / name).write_bytes(name.encode() * 1000)
        files.append(describe_file(folder, f"{STATE}/{name}"))
    if spoil:
        (folder / STATE / "moments.pt").write_bytes(b"another " * 1000)
    begin(tmp_path, INFO.step, is_main=True)
    return StagedCheckpoint(tmp_path, INFO, folder, files, main=True)


def test_nothing_counts_before_it_is_finished(tmp_path: Path) -> None:
    staged = stage(tmp_path)
    staged._thread.join()
    assert staged.is_copied()
    assert list_checkpoints(tmp_path) == []  # where a crash would leave the run

    info = staged.finish()

    ((step, folder),) = list_checkpoints(tmp_path)
    assert step == 7
    assert verify(folder) == info
    assert info.size_bytes == 20_000
    assert not list((tmp_path / "local").rglob("*.pt"))


def test_a_damaged_snapshot_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"moments\.pt is damaged"):
        stage(tmp_path, spoil=True).finish()
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert not list((tmp_path / "local").rglob("*.pt"))


def test_leftovers_of_a_killed_job_are_removed_and_no_others(tmp_path: Path) -> None:
    mine, other = (stage_folder(tmp_path / "local", tmp_path / run, rank=0) for run in ("one", "two"))
    for folder in (mine, other):
        folder.mkdir(parents=True)
    remove_leftovers(tmp_path / "local", tmp_path / "one", rank=0)
    assert not mine.exists()
    assert other.exists()
