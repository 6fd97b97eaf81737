"""What the cost of an action head follows from (`pokevla.recipe.planning.heads`)."""

from __future__ import annotations

from dataclasses import dataclass

from pokevla.recipe.planning.sizes import HeadSize
from pokevla.recipe.planning.tape import Activation


@dataclass(frozen=True)
class HeadCondition:
    """The hidden states that one layer of the head attends to."""

    vision: Activation  # (N, D) states of all views
    queries: Activation  # (Q, D)
    seg: Activation  # (1, D)


@dataclass(frozen=True)
class HeadJob:
    """What one forward pass of a head works on."""

    size: HeadSize
    chunk_length: int
    action_width: int
    seg_injection: bool
    conditions: tuple[HeadCondition, ...]  # one per layer of the head
    proprio: Activation  # (1, D)
    variant: str = "original"  # of the head `bridge`
