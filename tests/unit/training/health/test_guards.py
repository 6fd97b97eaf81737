"""A non-finite loss makes every gradient of its rank NaN; a finite one changes none."""

from __future__ import annotations

import pytest
import torch

from pokevla.errors import TrainingError
from pokevla.training.health.guards import SkipCounter, poison_if_bad, worse


def test_a_finite_loss_keeps_its_gradients() -> None:
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    poison_if_bad((weight**2).sum()).backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [2.0, 4.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_loss_makes_every_gradient_nan(bad: float) -> None:
    weight = torch.ones(3, requires_grad=True)
    poison_if_bad(weight.sum() + bad).backward()  # without the guard the gradient would be one
    assert weight.grad is not None
    assert weight.grad.isnan().all()


def test_a_loss_above_the_limit_is_as_bad() -> None:
    for limit, spoiled in [(2.0, True), (3.0, False)]:
        weight = torch.ones(3, requires_grad=True)
        poison_if_bad(weight.sum(), limit).backward()
        assert weight.grad is not None
        assert weight.grad.isnan().all() == spoiled


def test_the_worst_loss_is_the_largest_finite_one() -> None:
    worst = torch.tensor(-torch.inf)
    for loss in (1.0, float("nan"), 3.0, float("inf"), 2.0):
        worst = worse(worst, torch.tensor(loss))
    assert worst == 3.0


def test_too_many_skips_in_a_row_end_the_run() -> None:
    counter = SkipCounter(max_consecutive=3)
    for step, skipped in enumerate([True, True, False, True, True], start=1):
        counter.note(step, skipped)
    with pytest.raises(TrainingError, match="3 steps in a row, the last was step 6"):
        counter.note(6, True)
    assert counter.total == 5


@pytest.mark.parametrize(
    ("skipped", "words"),
    [
        ([True] * 6, "All 6 steps of the training were skipped"),
        ([False, False, True, True, True, True], "The last 4 steps of the training were skipped"),
        ([True, True, False, False, True, True], None),  # fewer than the window
        ([False, False, False, False, False, True], None),
    ],
)
def test_a_training_that_ends_with_skipped_steps_only_is_not_finished(skipped: list[bool], words: str | None) -> None:
    counter = SkipCounter(max_consecutive=100)
    for step, bad in enumerate(skipped, start=1):
        counter.note(step, bad)
    if words is None:
        counter.refuse_bad_end(6, window=3)
        counter.refuse_bad_end(6, window=1) if not skipped[-2] else None
    else:
        with pytest.raises(TrainingError, match=words):
            counter.refuse_bad_end(6, window=3)
