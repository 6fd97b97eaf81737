"""Only what is whole counts as a checkpoint."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pokevla.checkpoint.catalogue import (
    MARKER,
    STATE,
    CheckpointInfo,
    apply_retention,
    checkpoint_folder,
    latest_complete,
    list_checkpoints,
    read_info,
    refuse_misfit,
    verify,
)
from pokevla.checkpoint.files import describe_file, write_json_atomically
from pokevla.errors import CheckpointError

INFO = CheckpointInfo(
    step=1, position=8, world_size=2, zero_stage=2, precision="fp32", recipe_hash="a" * 64, frozen_hash="b" * 16
)


def put(run_dir: Path, step: int) -> Path:
    """A complete checkpoint with one file."""
    folder = checkpoint_folder(run_dir, step)
    (folder / STATE).mkdir(parents=True)
    (folder / STATE / "weights.pt").write_bytes(b"weights of step %d" % step)
    info = replace(INFO, step=step, files=(describe_file(folder, f"{STATE}/weights.pt"),))
    write_json_atomically(folder / MARKER, {"schema_version": 1, **asdict(info)})
    return folder


def test_the_newest_whole_checkpoint_is_found(tmp_path: Path) -> None:
    put(tmp_path, 9)
    newest = put(tmp_path, 10)
    found = latest_complete(tmp_path)
    assert found is not None
    assert found[0] == newest
    assert found[1].step == 10


def test_a_run_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert latest_complete(tmp_path) is None


def test_a_checkpoint_without_marker_and_a_temporary_one_do_not_count(tmp_path: Path) -> None:
    (put(tmp_path, 2) / MARKER).unlink()
    put(tmp_path, 3).rename(tmp_path / "checkpoints" / ".tmp-step-00000003")
    put(tmp_path, 1)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [1]


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "marker"])
def test_a_damaged_checkpoint_is_passed_over_loudly(tmp_path: Path, damage: str) -> None:
    good, bad = put(tmp_path, 1), put(tmp_path, 2)
    part = bad / STATE / "weights.pt"
    if damage == "missing":
        part.unlink()
    elif damage == "truncated":
        part.write_bytes(part.read_bytes()[:-1])
    elif damage == "flipped":
        part.write_bytes(b"W" + part.read_bytes()[1:])
    else:
        (bad / MARKER).write_text("{")
    messages: list[str] = []
    found = latest_complete(tmp_path, messages.append)
    assert found is not None
    assert found[0] == good
    assert len(messages) == 1
    assert "step-00000002" in messages[0]


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(tmp_path: Path) -> None:
    (put(tmp_path, 1) / STATE / "weights.pt").unlink()
    with pytest.raises(CheckpointError, match="All 1 checkpoints"):
        latest_complete(tmp_path)


def test_retention_keeps_the_newest_and_the_milestones(tmp_path: Path) -> None:
    for step in range(1, 9):
        put(tmp_path, step)
    (tmp_path / "checkpoints" / ".tmp-step-00000004").mkdir()
    assert apply_retention(tmp_path, keep_last=2, keep_every_steps=3) == [1, 2, 4, 5]
    assert [step for step, _ in list_checkpoints(tmp_path)] == [3, 6, 7, 8]
    assert not list((tmp_path / "checkpoints").glob(".tmp*"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"recipe_hash": "c" * 64}, "recipe"),
        ({"frozen_hash": "c" * 16}, "frozen weights"),
        ({"world_size": 4}, "2 ranks, this job has 4"),
    ],
)
def test_a_checkpoint_of_another_job_is_refused(tmp_path: Path, change: dict, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        refuse_misfit(tmp_path, INFO, replace(INFO, **change))


def test_a_marker_of_another_version_is_refused(tmp_path: Path) -> None:
    folder = put(tmp_path, 1)
    content = json.loads((folder / MARKER).read_text())
    (folder / MARKER).write_text(json.dumps(content | {"schema_version": 99}))
    with pytest.raises(CheckpointError, match="schema version 99"):
        read_info(folder)
    assert content["step"] == 1


def test_verify_returns_what_the_marker_says(tmp_path: Path) -> None:
    assert verify(put(tmp_path, 5)).position == 8
