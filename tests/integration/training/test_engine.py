"""Promises of the engine on two real ranks. All scenarios run in one pair of processes (engine_scenarios.py)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pokevla.distributed.process import spawn_ranks
from pokevla.training.schedule import rate_factor

pytestmark = pytest.mark.engine
KINDS = ["0/fp32", "0/bf16", "1/fp32", "1/bf16", "2/fp32", "2/bf16", "3/fp32", "3/bf16"]


@pytest.fixture(scope="module")
def results(
    repository: Path,
    write_recipe: Callable[..., Path],
    pretrain_recipe: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[dict[str, Any]]:
    """What each rank reports."""
    out = tmp_path_factory.mktemp("engine")
    recipes = [str(write_recipe("engine", out)), str(pretrain_recipe("engine", out))]
    spawn_ranks(
        (str(repository / "tests/integration/training/engine_scenarios.py"), *recipes, str(out)),
        world_size=2,
        threads=1,
        log_dir=out / "logs",
        environment={**os.environ, "PYTHONPATH": str(repository)},
    )
    return [json.loads((out / f"rank_{rank}.json").read_text()) for rank in range(2)]


def test_accumulation_of_two_is_one_big_batch(results: list[dict[str, Any]]) -> None:
    outcome = results[0]["accumulation_is_one_big_batch"]
    assert outcome["accumulated"]["norms"] == pytest.approx(outcome["whole"]["norms"], rel=1e-5)
    # Three AdamW steps at a rate of 1e-3: a wrong denominator would show in the third digit of 1e-3.
    assert outcome["largest_difference"] < 1e-4


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_measuring_gradient_norms_changes_no_bit(results: list[dict[str, Any]], stage: int) -> None:
    outcome = results[0]["measuring_norms_changes_nothing"]
    assert outcome[f"{stage}/0"] == outcome[f"{stage}/1"]


def test_every_loss_has_a_gradient_norm_on_all_ranks(results: list[dict[str, Any]]) -> None:
    norms = results[0]["measuring_norms_changes_nothing"]["norms"]
    assert set(norms) == {"grad_norm/action", "grad_norm/segmentation", "grad_norm/geometry"}
    assert all(value > 0 for value in norms.values())
    assert norms == results[1]["measuring_norms_changes_nothing"]["norms"]


def test_applied_rate_is_the_schedules(results: list[dict[str, Any]]) -> None:
    factor = rate_factor(6, 2, "cosine", 0.0)  # warmup_fraction 0.25 of 6 steps
    applied = results[0]["applied_rates"]["applied"][::2]  # ZeRO steps the optimizer once per parameter group
    assert applied == pytest.approx([0.01 * factor(step) for step in range(6)])


def test_half_written_and_damaged_checkpoints_are_passed_over(results: list[dict[str, Any]]) -> None:
    outcome = results[0]["half_and_damaged_checkpoints"]
    assert outcome == {"step": 1, "events": ["damaged", "resumed"]}


def test_other_frozen_weights_are_refused(results: list[dict[str, Any]]) -> None:
    for rank in range(2):
        outcome = results[rank]["other_frozen_weights_are_refused"]
        assert outcome["error"] == "CheckpointError"
        assert "frozen weights" in outcome["message"]


def test_a_full_disk_on_one_rank_lets_all_go_on_from_the_last_good_checkpoint(results: list[dict[str, Any]]) -> None:
    for rank in range(2):
        outcome = results[rank]["a_full_disk_lets_the_run_go_on"]
        assert outcome["saved"] == [True, False, True, False]
        assert outcome["left"] == ["step-00000001"]
        assert outcome["complete"] == [1, 3]
    events = results[0]["a_full_disk_lets_the_run_go_on"]["events"]
    assert events == ["saved", "save_failed", "saved", "save_failed", "save_failed"]


def test_too_many_failed_saves_in_a_row_end_the_run(results: list[dict[str, Any]]) -> None:
    for rank in range(2):
        outcome = results[rank]["a_full_disk_lets_the_run_go_on"]
        assert (outcome["error"], outcome["exit_code"]) == ("DiskFullError", 3)
        assert results[rank]["the_last_save_must_not_fail"]["error"] == "DiskFullError"


def test_saving_changes_no_bit_of_training_staged_or_not(results: list[dict[str, Any]]) -> None:
    for rank in range(2):
        outcome = results[rank]["saving_changes_nothing"]
        assert outcome["direct"]["weights"] == outcome["staged"]["weights"] == outcome["none"]["weights"]
        assert outcome["direct"]["complete"] == outcome["staged"]["complete"] == [1]
        assert outcome["direct"]["resumed"] == outcome["staged"]["resumed"] == 1


def test_validation_changes_no_bit_of_training(results: list[dict[str, Any]]) -> None:
    outcome = results[0]["validation_changes_nothing"]
    assert outcome["with"] == outcome["without"]


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("task", ["pretrain", "posttrain"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_engine_goes_on_bit_by_bit(
    results: list[dict[str, Any]], kind: str, task: str, accumulation: int
) -> None:
    for rank in range(2):
        outcome = results[rank][f"resume_is_exact/{kind}"][f"{task}/{accumulation}"]
        for part in ("weights", "moments", "losses", "norms"):
            whole, resumed = outcome[part]
            assert whole == resumed, part
        assert outcome["position"] == 16


@pytest.mark.parametrize("kind", KINDS)
def test_exported_weights_are_the_engines_master_copies(results: list[dict[str, Any]], kind: str) -> None:
    outcome = results[0][f"export_equals_engine/{kind}"]
    assert outcome["difference"] == 0.0
    # In bf16 the masters are finer than what the engine computes with.
    assert (outcome["unrounded"] > 0) == kind.endswith("bf16")


@pytest.mark.parametrize("kind", KINDS)
def test_a_nan_batch_on_one_rank_is_skipped_by_all(results: list[dict[str, Any]], kind: str) -> None:
    for rank in range(2):
        outcome = results[rank][f"nan_is_skipped_together/{kind}"]
        assert outcome["norm"] == [None]
        assert outcome["unchanged"] == [True, True]
        assert all(norm is not None and norm > 0 for norm in outcome["later"])
        assert outcome["moved"]
