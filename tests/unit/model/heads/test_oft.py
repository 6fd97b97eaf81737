"""The OFT head: its published size, one query per number of the chunk, and what it reads."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pokevla.errors import UsageError
from pokevla.model.heads.condition import HeadCondition
from pokevla.model.heads.oft import OFTHead
from pokevla.model.presets import ActionHeadConfig, preset

CONFIG = dataclasses.replace(preset("tiny").action_head, kind="oft", num_queries=56)


@pytest.mark.parametrize(("width", "size"), [(4096, 151_117_831), (896, 7_252_231)])
def test_sizes_at_the_published_width_and_at_ours(width: int, size: int) -> None:
    config = ActionHeadConfig(2, width, 8, 56, 7, 8, kind="oft")
    with torch.device("meta"):
        head = OFTHead(config, width)
    assert sum(parameter.numel() for parameter in head.parameters()) == size


def test_each_step_reads_its_own_seven_queries_and_nothing_else() -> None:
    head = OFTHead(CONFIG, 32)
    queries = torch.randn(2, 56, 32, requires_grad=True)
    first = HeadCondition(torch.randn(2, 9, 32), torch.randn(2, 56, 32), torch.randn(2, 32))
    actions = head([first, dataclasses.replace(first, queries=queries)], torch.randn(2, 1, 32))
    assert actions.shape == (2, 8, 7)
    (gradient,) = torch.autograd.grad(actions[0, 3].sum(), queries)
    assert gradient[0].abs().sum(dim=-1).nonzero().flatten().tolist() == list(range(21, 28))
    assert not gradient[1].any()


def test_other_numbers_of_queries_are_refused() -> None:
    with pytest.raises(UsageError, match=r"8 x 7 = 56; num_queries is 4\."):
        OFTHead(dataclasses.replace(CONFIG, num_queries=4), 32)
