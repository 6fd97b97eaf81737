"""What ranks tell each other. All functions are called by all ranks, and also work for one rank without a group."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


def is_distributed() -> bool:
    """Whether there is more than one rank to talk to."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def mean_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Mean of a 1-D tensor over all ranks (new tensor, float64 so that logging adds no rounding)."""
    total = values.detach().double().clone()
    if is_distributed():
        dist.all_reduce(total)
        total /= dist.get_world_size()
    return total


def broadcast_object(value: T) -> T:
    """Rank 0's value, on all ranks."""
    box: list = [value]
    if is_distributed():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_objects(value: T) -> list[T]:
    """Every rank's value, in rank order, on all ranks."""
    if not is_distributed():
        return [value]
    values: list = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def first_error(error: Exception | None) -> tuple[int, Exception] | None:
    """Agree on failure: (rank, error) of the lowest rank that has one, or None when all ranks are well."""
    for rank, other in enumerate(gather_objects(error)):
        if other is not None:
            return rank, other
    return None


def barrier() -> None:
    """Wait for all ranks."""
    if is_distributed():
        dist.barrier()
