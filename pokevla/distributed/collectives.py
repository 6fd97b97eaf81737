"""Collectives. All ranks call all functions; they also work for a single rank without a process group."""

from __future__ import annotations

from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

T = TypeVar("T")


def is_distributed() -> bool:
    """Whether there is more than one rank."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def mean_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Mean of a 1-D tensor over all ranks, as a new float64 tensor, so that logging adds no rounding."""
    total = values.detach().double().clone()
    if is_distributed():
        dist.all_reduce(total)
        total /= dist.get_world_size()
    return total


def max_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Element-wise maximum over all ranks, as a new tensor."""
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
    """(rank, error) of the lowest rank that has an error, on all ranks; None if no rank has one."""
    for rank, other in enumerate(gather_objects(error)):
        if other is not None:
            return rank, other
    return None


def barrier() -> None:
    """Wait for all ranks."""
    if is_distributed():
        dist.barrier()


def set_collective_timeout(timeout_s: float) -> None:
    """Set how long later collectives wait for other ranks, in every process group. Does nothing without a group.

    DeepSpeed creates groups that do not inherit the timeout: torch gives them 10 minutes on NCCL, 30 on gloo.
    """
    if dist.is_initialized():
        for group in list(distributed_c10d._world.pg_map):
            dist.set_timeout(timedelta(seconds=timeout_s), group)
