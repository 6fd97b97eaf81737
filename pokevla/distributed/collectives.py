"""What ranks tell each other. All functions are called by all ranks, and also work for one rank without a group."""

from __future__ import annotations

from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

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


def max_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Element by element the largest value of all ranks (new tensor)."""
    largest = values.detach().clone()
    if is_distributed():
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


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


def set_collective_timeout(timeout_s: float) -> None:
    """How long the coming collectives wait for other ranks, in every group; nothing without a group.

    DeepSpeed makes its own groups, and those do not inherit: torch gives them 10 minutes on NCCL, 30 on gloo.
    """
    if dist.is_initialized():
        for group in list(distributed_c10d._world.pg_map):
            dist.set_timeout(timedelta(seconds=timeout_s), group)
