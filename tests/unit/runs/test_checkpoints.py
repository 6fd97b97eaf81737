"""Only what is whole counts as a checkpoint."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pokevla.errors import CheckpointError
from pokevla.runs.checkpoints import (
    CONVERTED,
    MARKER,
    apply_retention,
    checkpoint_folder,
    list_checkpoints,
    mark_healthy,
    read_info,
    refuse_misfit,
    write_info,
)
from tests.unit.runs.whole_checkpoints import INFO, put


def test_a_checkpoint_without_marker_and_a_temporary_one_do_not_count(tmp_path: Path) -> None:
    (put(tmp_path, 2) / MARKER).unlink()
    put(tmp_path, 3).rename(tmp_path / "checkpoints" / ".tmp-step-00000003")
    put(tmp_path, 1)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [1]


def steps_of(run_dir: Path) -> list[int]:
    return [step for step, _ in list_checkpoints(run_dir)]


def test_retention_keeps_the_newest_and_the_milestones(tmp_path: Path) -> None:
    for step in range(1, 9):
        mark_healthy(put(tmp_path, step), step + 1)
    (tmp_path / "checkpoints" / ".tmp-step-00000004").mkdir()
    assert apply_retention(tmp_path, 99, keep_last=2, keep_every_steps=3) == [1, 2, 4, 5]
    assert steps_of(tmp_path) == [3, 6, 7, 8]
    assert not list((tmp_path / "checkpoints").glob(".tmp*"))


def test_the_newest_healthy_checkpoint_and_the_next_candidate_are_never_deleted(tmp_path: Path) -> None:
    for step in range(1, 9):
        put(tmp_path, step)
    for step in (2, 3):
        mark_healthy(checkpoint_folder(tmp_path, step), step + 2)
    assert apply_retention(tmp_path, 99, keep_last=1, keep_every_steps=None) == [1, 2, 5, 6, 7]
    assert steps_of(tmp_path) == [3, 4, 8]


def test_a_later_checkpoint_that_a_resume_has_passed_over_displaces_no_good_one(tmp_path: Path) -> None:
    for step in (1, 2, 3, 9):
        put(tmp_path, step)
    assert apply_retention(tmp_path, 3, keep_last=1, keep_every_steps=None) == [2]  # 1 may turn out to be healthy
    assert steps_of(tmp_path) == [1, 3, 9]


def test_a_folder_of_checkpoints_that_cannot_be_listed_is_an_error_not_a_new_start(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(CheckpointError, match="checkpoints cannot be listed"):
        list_checkpoints(tmp_path)


def test_a_healthy_checkpoint_is_reached_however_often_is_saved(tmp_path: Path) -> None:
    """Saving every step, health known after five: without the candidate none would live long enough."""
    for now in range(1, 40):
        for step in steps_of(tmp_path):
            if now - step >= 5:
                mark_healthy(checkpoint_folder(tmp_path, step), now)
        put(tmp_path, now)
        apply_retention(tmp_path, 99, keep_last=1, keep_every_steps=None)
        assert len(steps_of(tmp_path)) <= 3
    assert steps_of(tmp_path)[0] >= 39 - 2 * 5


def test_order_is_that_of_the_steps_whatever_the_clocks_say(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        folder = put(tmp_path, step)
        for path in (folder, *folder.rglob("*")):  # written by machines whose clocks go backwards
            os.utime(path, (2e9 - step * 1e6, 2e9 - step * 1e6))
    assert steps_of(tmp_path) == [1, 2, 3]
    assert apply_retention(tmp_path, 99, keep_last=1, keep_every_steps=None) == [2]  # 1 may yet turn out to be healthy


def test_only_the_newest_checkpoint_keeps_its_conversion(tmp_path: Path) -> None:
    for step in (1, 2):
        (put(tmp_path, step) / CONVERTED).mkdir()
    apply_retention(tmp_path, 99, keep_last=2, keep_every_steps=None)
    assert [(folder / CONVERTED).exists() for _, folder in list_checkpoints(tmp_path)] == [False, True]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"recipe_hash": "c" * 64}, "recipe"),
        ({"frozen_hash": "c" * 16}, "frozen weights"),
        ({"zero_stage": 3}, r"zero\.stage 2, the run's recipe has 3.*Set zero\.stage back to 2"),
        ({"precision": "bf16"}, "precision fp32.*Set precision back to fp32"),
        (
            {"datasets": {"data/robot": "f2"}},
            "dataset data/robot has changed since step 1: fingerprint f2 instead of f1",
        ),
        ({"caches": {"data/robot": "c2"}}, "features of data/robot .*fingerprint c2 instead of c1.*teachers' weights"),
        ({"caches": {}}, "features of data/robot .*fingerprint None instead of c1"),
    ],
)
def test_a_checkpoint_of_another_job_is_refused(tmp_path: Path, change: dict, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        refuse_misfit(tmp_path, INFO, replace(INFO, **change))


def test_another_number_of_ranks_and_other_resources_are_not_refused(tmp_path: Path) -> None:
    refuse_misfit(tmp_path, INFO, replace(INFO, world_size=4, settings={"batch.micro": 1}))


def test_a_marker_of_another_version_is_refused(tmp_path: Path) -> None:
    folder = put(tmp_path, 1)
    content = json.loads((folder / MARKER).read_text())
    (folder / MARKER).write_text(json.dumps(content | {"schema_version": 99}))
    with pytest.raises(CheckpointError, match="schema version 99"):
        read_info(folder)
    assert content["step"] == 1


def test_norms_that_are_not_finite_are_read_as_they_were_written(tmp_path: Path) -> None:
    folder = put(tmp_path, 1)
    norms = {"grad_norm/action": float("inf")}
    write_info(folder, replace(INFO, metrics={"loss_grad_norms": {**norms, "grad_norm/geometry": float("nan")}}))
    read = read_info(folder).metrics["loss_grad_norms"]
    assert read["grad_norm/action"] == float("inf")
    assert read["grad_norm/geometry"] != read["grad_norm/geometry"]


def test_retention_keeps_a_checkpoint_in_which_something_else_lies(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2, 3):
        put(tmp_path, step)
    (tmp_path / "checkpoints" / "step-00000001" / "state" / "notes.txt").write_text("the best one")
    (tmp_path / "checkpoints" / ".tmp-step-00000009").mkdir()
    (tmp_path / "checkpoints" / ".tmp-step-00000009" / "notes.txt").write_text("mine")
    assert apply_retention(tmp_path, 3, keep_last=1, keep_every_steps=None) == [2]
    mark_healthy(tmp_path / "checkpoints" / "step-00000003", 3)
    assert apply_retention(tmp_path, 3, keep_last=1, keep_every_steps=None) == []
    assert [step for step, _ in list_checkpoints(tmp_path)] == [1, 3]
    assert "step-00000001 is not deleted" in caplog.text
    assert (tmp_path / "checkpoints" / ".tmp-step-00000009" / "notes.txt").is_file()
