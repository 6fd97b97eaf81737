"""A loss that is not finite spoils every gradient on its rank; a finite one none."""

from __future__ import annotations

import pytest
import torch

from pokevla.errors import TrainingError
from pokevla.training.guards import SkipCounter, poison_if_not_finite


def test_a_finite_loss_keeps_its_gradients() -> None:
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    poison_if_not_finite((weight**2).sum()).backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [2.0, 4.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_loss_makes_every_gradient_nan(bad: float) -> None:
    weight = torch.ones(3, requires_grad=True)
    poison_if_not_finite(weight.sum() + bad).backward()  # without the guard the gradient would be one
    assert weight.grad is not None
    assert weight.grad.isnan().all()


def test_too_many_skips_in_a_row_end_the_run() -> None:
    counter = SkipCounter(max_consecutive=3)
    for step, skipped in enumerate([True, True, False, True, True], start=1):
        counter.note(step, skipped)
    with pytest.raises(TrainingError, match="3 steps in a row, the last was step 6"):
        counter.note(6, True)
    assert counter.total == 5
