"""The feed hands out every micro-batch once, in order, with the position that belongs to it."""

from __future__ import annotations

from typing import Any

import torch

from pokevla.data.batch import VLMBatch, tensors_of
from pokevla.training.feeding import DeviceFeed


class Numbered:
    """An endless source whose batches carry their number."""

    def __init__(self) -> None:
        self.position = 6

    def __next__(self) -> Any:
        number = torch.full((2, 1), self.position)
        self.position += 2
        return VLMBatch(["a", "b"], number[:, 0], number.to(torch.uint8), number, number.bool(), number)


def test_batches_come_in_order_with_their_positions_and_nothing_is_read_ahead() -> None:
    source = Numbered()
    feed = DeviceFeed(source, torch.device("cpu"))
    assert feed.position == source.position == 6
    for first in (6, 8, 10):
        batch = next(feed)
        assert batch.positions.tolist() == batch.labels[:, 0].tolist() == [first, first]
        assert feed.position == source.position == first + 2


def test_all_tensors_but_the_positions_move() -> None:
    source = Numbered()
    batch = next(DeviceFeed(source, torch.device("meta")))
    assert all(tensor.is_meta for tensor in tensors_of(batch))
    assert len(tensors_of(batch)) == 4
    assert not batch.positions.is_meta
