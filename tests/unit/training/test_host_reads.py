"""Forward and backward passes never make the host wait for the device.

Counted on the CPU: every operation whose result depends on values that the host reads. On a GPU each would stall the
step. What remains once per step, outside the two passes, is in docs/performance.md.
"""

from __future__ import annotations

import traceback
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pokevla.data.batch import trained_places
from pokevla.model.building import build_vla, build_vlm
from pokevla.model.presets import preset
from pokevla.recipe.sections import LossConfig, SegmentationLossConfig
from pokevla.training.health.guards import poison_if_bad, worse
from pokevla.training.objectives.objective import PosttrainObjective, PretrainObjective
from tests.unit.training.objectives.test_objective import robot_batch, vlm_batch

CONFIG = preset("tiny")
READS = {"_local_scalar_dense", "nonzero", "masked_select", "bincount", "_unique2", "unique_dim", "is_nonzero", "equal"}
"""Operators of ATen that copy a value, or the size of their result, to the host."""


class HostReads(TorchDispatchMode):
    """Notes the function outside torch that called each reading operator."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        by_mask = name.startswith("index") and any(
            isinstance(index, Tensor) and index.dtype == torch.bool
            for argument in args
            if isinstance(argument, list | tuple)
            for index in argument
        )
        if name in READS or (name == "repeat_interleave" and "Tensor" in func.__name__) or by_mask:
            frames = [frame for frame in traceback.extract_stack() if "/torch/" not in frame.filename]
            self.places.append(frames[-2].name)
        return func(*args, **(kwargs or {}))


def reads_of(objective: PosttrainObjective | PretrainObjective, batch: Any) -> list[str]:
    with HostReads() as reads:
        loss, _ = objective(batch)
        poison_if_bad(loss, 5.0).backward()
        worse(torch.tensor(0.0), loss)
    return reads.places


def test_post_training_reads_nothing_back() -> None:
    weights = LossConfig(segmentation=SegmentationLossConfig(coarse=0.5))
    batch = robot_batch()
    batch.pixel_values = (batch.pixel_values * 255).to(torch.uint8)
    # The check of the padding; on a GPU it is an asynchronous assertion.
    assert reads_of(PosttrainObjective(build_vla(CONFIG, seed=0), weights), batch) == ["check_right_padded"]


def test_pre_training_reads_nothing_back() -> None:
    labels = torch.randint(1, 100, (2, 8), generator=torch.Generator().manual_seed(2))
    labels[0, :3] = -100
    batch = vlm_batch(labels)
    batch.trained = trained_places(labels)
    assert reads_of(PretrainObjective(build_vlm(CONFIG.vlm, seed=0)), batch) == ["check_right_padded"]


def test_reads_are_found() -> None:
    def read_in_many_ways() -> None:
        values = torch.arange(4.0)
        values.sum().item()
        bool((values > 2).any())
        values[values > 2]
        (values > 2).nonzero()
        torch.bincount(values.long())

    with HostReads() as reads:
        read_in_many_ways()
    assert len(reads.places) == 5
    assert set(reads.places) == {"read_in_many_ways"}


def test_positions_stay_on_the_host() -> None:
    assert robot_batch().to("meta").positions.tolist() == [0, 1]
