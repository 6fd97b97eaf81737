"""Memory that batches are made in, and the arrays that cached features are read into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from pokevla.data.batch import FeatureField, QuantisedFeatures

PAGE_BYTES = 4096
Allocate = Callable[[tuple[int, ...], Any], np.ndarray]
"""(shape, dtype) -> an array with any content that begins at a page."""


def page_aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """New memory with any content that begins at a page. A read to 16 bytes past one takes four times as long on some
    processors (AMD Zen 3)."""
    kind = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    raw = np.empty(size + PAGE_BYTES, dtype=np.uint8)
    start = -raw.ctypes.data % PAGE_BYTES
    return raw[start : start + size].view(kind).reshape(shape)


class FeatureSlots:
    """Arrays for the cached features of a batch, and where in them each sample's record goes."""

    def __init__(self, fields: Sequence[FeatureField], count: int, allocate: Allocate) -> None:
        """`fields`: in the order of a record; `count`: samples of the batch."""
        self._fields = fields
        self._values = [allocate((count, *field.stored_shape), np.dtype(field.dtype)) for field in fields]
        self._scales = [
            None if field.scale_shape is None else allocate((count, *field.scale_shape), np.float16) for field in fields
        ]
        in_order = [*self._values, *(scales for scales in self._scales if scales is not None)]
        views = [array.reshape(-1).view(np.uint8).data for array in in_order]
        self._parts = [(view, len(view) // count) for view in views]

    def buffers(self, number: int) -> list[memoryview]:
        """Where the record of sample `number` goes: the values of all fields, then their scales."""
        return [view[number * size : (number + 1) * size] for view, size in self._parts]

    def batched(self) -> dict[str, QuantisedFeatures]:
        """The fields as tensors in the same memory."""
        return {
            field.name: QuantisedFeatures(
                torch.from_numpy(values), None if scales is None else torch.from_numpy(scales), field.codec
            )
            for field, values, scales in zip(self._fields, self._values, self._scales, strict=True)
        }
