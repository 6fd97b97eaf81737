"""Properties of the engine on two real ranks. All scenarios run in one pair of processes (engine_scenarios.py)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pokevla.distributed.process import spawn_ranks
from pokevla.training.optimizer import rate_factor

KINDS = ["0/fp32", "0/bf16", "1/fp32", "1/bf16", "2/fp32", "2/bf16", "3/fp32", "3/bf16"]


@pytest.fixture(scope="module")
def results(
    repository: Path,
    write_recipe: Callable[..., Path],
    pretrain_recipe: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[dict[str, Any]]:
    """The report of each rank."""
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


def test_a_checkpoint_that_one_rank_cannot_load_is_passed_over_by_all(results: list[dict[str, Any]]) -> None:
    for rank, events in ((0, ["damaged", "resumed"]), (1, [])):
        outcome = results[rank]["a_file_that_one_rank_cannot_load"]
        assert (outcome["step"], outcome["events"], outcome["equal"]) == (1, events, True)
        assert all(norm > 0 for norm in outcome["norms"])


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


def test_saving_changes_no_bit_of_training_in_the_background_or_not(results: list[dict[str, Any]]) -> None:
    for rank in range(2):
        outcome = results[rank]["saving_changes_nothing"]
        assert outcome["direct"]["weights"] == outcome["background"]["weights"] == outcome["none"]["weights"]
        assert outcome["direct"]["complete"] == outcome["background"]["complete"] == [1]
        assert outcome["direct"]["resumed"] == outcome["background"]["resumed"] == 1


def test_validation_changes_no_bit_of_training(results: list[dict[str, Any]]) -> None:
    outcome = results[0]["validation_changes_nothing"]
    assert outcome["with"] == outcome["without"]


@pytest.mark.parametrize(
    ("kind", "task", "accumulation"),
    [
        *((kind, task, number) for kind in KINDS for task, number in (("pretrain", 2), ("posttrain", 1))),
        ("2/bf16", "posttrain", 2),
        ("3/bf16", "posttrain", 2),
    ],
)
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
    # In bf16 the master weights are more precise than the weights the engine computes with.
    assert (outcome["unrounded"] > 0) == kind.endswith("bf16")


@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_rounds_no_buffer(results: list[dict[str, Any]], kind: str) -> None:
    matrix = "prompt_encoder.shared_embedding.positional_embedding"
    for rank in range(2):
        outcome = results[rank][f"export_equals_engine/{kind}"]
        assert outcome["changed_buffers"] == []
        assert outcome["buffers"] == [f"coarse_{matrix}", f"fine_{matrix}"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_nan_batch_on_one_rank_is_skipped_by_all(results: list[dict[str, Any]], kind: str) -> None:
    for rank in range(2):
        outcome = results[rank][f"nan_is_skipped_together/{kind}"]
        assert outcome["norm"] == [None]
        assert outcome["unchanged"] == [True, True]
        assert all(norm is not None and norm > 0 for norm in outcome["later"])
        assert outcome["moved"]


def test_a_signal_to_one_rank_stops_both_and_the_run_goes_on_bit_by_bit(results: list[dict[str, Any]]) -> None:
    for rank in range(2):
        outcome = results[rank]["a_signal_to_one_rank_stops_both"]
        assert outcome["reason"] == "timeout"
        assert outcome["message"].startswith("saved at step 3; continue with: pokevla resume ")
        assert outcome["step"] == 3
        whole, resumed = outcome["weights"]
        assert whole == resumed
    events = results[0]["a_signal_to_one_rank_stops_both"]["events"]
    assert [(row["event"], row["step"]) for row in events] == [
        ("saved", 3),
        ("stopped", 3),
        ("resumed", 3),
        ("saved", 6),
    ]
    assert (events[1]["reason"], events[1]["position"]) == ("timeout", 24)
    assert all(row["save_s"] > 0 for row in events if row["event"] == "saved")


def test_ranks_that_disagree_are_named_with_their_values_on_all_ranks(results: list[dict[str, Any]]) -> None:
    shifted = [results[rank]["a_rank_elsewhere_in_the_data_is_found"] for rank in range(2)]
    assert shifted[0] == shifted[1]
    assert shifted[0]["error"] == "TrainingError"
    assert re.search(
        r"rank 0 on \S+ is at step 2, position 16, .*; rank 1 on \S+ is at step 2, position 18,", shifted[0]["message"]
    )
    messages = [results[rank]["agreement"]["messages"] for rank in range(2)]
    assert messages[0] == messages[1]
    assert "is at step 3, position 24, gradient norm 1.5; rank 1" in messages[0][0]
    assert "is at step 4" in messages[0][0]
    assert messages[0][1].count("gradient norm 1.5") == 1
    assert "gradient norm 2.5" in messages[0][1]
    assert "gradient norm not finite" in messages[0][2]


def test_ranks_agree_on_the_worst_loss_and_on_the_strongest_signal(results: list[dict[str, Any]]) -> None:
    for rank in range(2):
        assert results[rank]["agreement"]["agreed"] == [2.0, 1]
        assert results[rank]["agreement"]["all_skipped"] == 0


def test_a_spike_on_one_rank_is_skipped_by_all_and_after_a_resume_alike(results: list[dict[str, Any]]) -> None:
    name = "a_spike_on_one_rank_is_skipped_by_all_after_a_resume_too"
    for rank in range(2):
        outcome = results[rank][name]
        assert outcome["resumed_at"] == 5
        assert outcome["weights"][0] == outcome["weights"][1]
        assert outcome["histories"][0] == outcome["histories"][1]
        assert len(outcome["histories"][0]) == 7, "all steps but the one left out"
    for events in results[0][name]["events"]:
        assert [(row["step"], row["reason"]) for row in events if row["event"] == "skipped"] == [(6, "spike")]


def test_a_rank_that_hangs_is_named_by_all_with_their_stacks(results: list[dict[str, Any]]) -> None:
    outcomes = [results[rank]["a_rank_that_hangs_is_named_by_all"] for rank in range(2)]
    for rank, outcome in enumerate(outcomes):
        (text,) = outcome["reports"]
        assert text.startswith(f"rank {rank} on ")
        assert re.search(r"Behind: rank 1 on \S+: in data after step 1 for \d+ s\.", text), text
    assert "in wait" in outcomes[1]["stacks"], "rank 1 waits for its data"
    assert "in backward" in outcomes[0]["stacks"], "rank 0 waits for rank 1"
