"""Hands micro-batches to the loop on its device. On a GPU the next one is copied while the current one is computed."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import torch

from pokevla.data.batch import tensors_of

MAX_COPYING = 8
"""Micro-batches whose copies may be under way before the host waits for the oldest: fewer than the loader has slots."""


class Source(Protocol):
    """An endless stream of micro-batches in host memory (`pokevla.data.loader.TrainLoader`, or `ProcessLoader`, whose
    memory is written again as soon as nobody holds the batch)."""

    @property
    def position(self) -> int:
        """Number of samples consumed by all ranks, including the last micro-batch."""
        ...

    def __next__(self) -> Any: ...


class DeviceFeed:
    """Micro-batches of a loader on one device, in the same order.

    On a GPU, copies from the loader's pinned memory run on a stream of their own, one micro-batch ahead of the model:
    the host does not wait for them, and the GPU computes meanwhile. On the CPU nothing is copied or read ahead.
    """

    def __init__(self, source: Source, device: torch.device) -> None:
        self._source, self._device = source, device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._ahead: tuple[Any, int] | None = None
        self._copying: deque[tuple[Any, Any]] = deque()  # (event, host batch) of copies under way
        self.position = source.position
        """Samples consumed by all ranks, including the micro-batch that was handed out last."""

    def __next__(self) -> Any:
        """The next micro-batch. Its tensors may be used on the current stream."""
        if self._stream is None:
            batch = next(self._source).to(self._device)
            self.position = self._source.position
            return batch
        if self._ahead is None:
            self._ahead = self._start_copy(self._stream)
        batch, self.position = self._ahead
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        for tensor in tensors_of(batch):
            tensor.record_stream(current)  # its memory was allocated for the copying stream
        self._ahead = self._start_copy(self._stream)
        return batch

    def _start_copy(self, stream: torch.cuda.Stream) -> tuple[Any, int]:
        while self._copying and (self._copying[0][0].query() or len(self._copying) > MAX_COPYING):
            self._copying[0][0].synchronize()
            self._copying.popleft()
        batch = next(self._source)
        with torch.cuda.stream(stream):
            copied = batch.to(self._device, non_blocking=True)
            self._copying.append((stream.record_event(), batch))
        return copied, self._source.position
