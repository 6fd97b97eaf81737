"""Batch arithmetic, steps and warm-up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.errors import RecipeError
from pokevla.recipe.derive import DerivedBatch, derive_batch, total_steps, warmup_steps
from pokevla.recipe.schema import PretrainRecipe
from pokevla.recipe.sections import BatchConfig


def recipe(**fields: object) -> PretrainRecipe:
    base = {
        "kind": "pretrain",
        "name": "x",
        "data": {"datasets": [{"path": "d"}]},
        "optim": {"lr": 1e-4},
        "batch": {"global": 128, "micro": 4},
    }
    return PretrainRecipe.model_validate(base | fields)


def test_accumulation_is_derived() -> None:
    assert derive_batch(BatchConfig(global_=128, micro=4), 8) == DerivedBatch(128, 4, 4, 8)


def test_batch_that_does_not_come_out_names_the_nearest_that_do() -> None:
    with pytest.raises(RecipeError) as caught:
        derive_batch(BatchConfig(global_=60, micro=8), 2)

    assert "batch.global 60 is not a multiple of batch.micro 8 x 2 rank(s) = 16" in str(caught.value)
    assert "Use batch.global=48 or 64, or batch.micro=6." in str(caught.value)


def test_a_run_that_has_begun_is_told_the_micro_batch_or_the_ranks_that_fit() -> None:
    batch = BatchConfig(global_=12, micro=2)
    assert derive_batch(batch, 3, begun=True).accumulation == 2
    with pytest.raises(RecipeError, match=r"Resume with batch\.micro=1\."):
        derive_batch(batch, 4, begun=True)
    with pytest.raises(RecipeError, match=r"Resume with 1, 2, 3, 4, 6 or 12 ranks\."):
        derive_batch(batch, 5, begun=True)


@given(st.integers(1, 500), st.integers(1, 40), st.integers(1, 16))
def test_batch_comes_out_whole_or_is_refused_with_values_that_do(size: int, micro: int, world: int) -> None:
    batch = BatchConfig(global_=size, micro=micro)
    if size % (micro * world) == 0:
        derived = derive_batch(batch, world)
        assert derived.micro * derived.accumulation * derived.world_size == size
        return
    with pytest.raises(RecipeError) as caught:
        derive_batch(batch, world)
    remedy = caught.value.remedy or ""
    if "batch.micro=" in remedy:
        suggested = int(remedy.rsplit("batch.micro=", 1)[1].rstrip("."))
        assert size % (suggested * world) == 0


def test_papers_epochs_are_its_steps() -> None:
    assert total_steps(recipe(epochs=2), [665_000, 694_000, 553_000, 511_000]) == 37_860


def test_steps_win_and_sizes_are_needed_only_for_epochs() -> None:
    assert total_steps(recipe(steps=7)) == 7
    assert total_steps(recipe(epochs=0.001), 1000) == 1
    with pytest.raises(RecipeError, match="Set steps instead"):
        total_steps(recipe(epochs=2))
    with pytest.raises(RecipeError, match="no training sample"):
        total_steps(recipe(epochs=2), [0])


def test_warmup_is_rounded_to_whole_steps() -> None:
    ten_percent = recipe(steps=1, optim={"lr": 1.0, "warmup_fraction": 0.1})

    assert warmup_steps(ten_percent, 150_000) == 15_000
    assert warmup_steps(recipe(steps=1, optim={"lr": 1.0, "warmup_fraction": 0.29}), 100) == 29
