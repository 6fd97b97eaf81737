"""Which checkpoints count as healthy."""

from __future__ import annotations

from pathlib import Path

import torch

from pokevla.runs.checkpoints import MARKER, checkpoint_folder, is_healthy, list_checkpoints
from pokevla.training.callbacks import StepResult
from pokevla.training.saving import HealthWatch


def result(step: int, finite: bool = True) -> StepResult:
    return StepResult(step, 8 * step, False, {}, 1e-3, 1.0 if finite else None, {}, torch.tensor(1.0))


def healthy(run_dir: Path) -> list[int]:
    return [step for step, folder in list_checkpoints(run_dir) if is_healthy(folder)]


def save(run_dir: Path, step: int) -> None:
    checkpoint_folder(run_dir, step).mkdir(parents=True)
    (checkpoint_folder(run_dir, step) / MARKER).write_text("{}")


def test_a_checkpoint_is_healthy_after_enough_finite_steps(tmp_path: Path) -> None:
    watch = HealthWatch(tmp_path, after_steps=3)
    for step in range(1, 9):
        watch.after_step(result(step))
        if step in (3, 6):
            save(tmp_path, step)
        assert healthy(tmp_path) == ([3] if step >= 6 else [])


def test_skipped_steps_start_the_count_again(tmp_path: Path) -> None:
    watch = HealthWatch(tmp_path, after_steps=3)
    save(tmp_path, 1)
    for step, finite in ((2, True), (3, True), (4, False), (5, True), (6, True)):
        watch.after_step(result(step, finite))
    assert healthy(tmp_path) == []
    watch.after_step(result(7))
    assert healthy(tmp_path) == [1]


def test_a_run_that_only_skips_has_no_healthy_checkpoint(tmp_path: Path) -> None:
    watch = HealthWatch(tmp_path, after_steps=2)
    save(tmp_path, 1)
    for step in range(2, 20):
        watch.after_step(result(step, finite=False))
    assert healthy(tmp_path) == []
