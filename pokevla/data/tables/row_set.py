"""A set of rows as one bit per row: 12.5 MB for 10^8 rows, and the n-th row of the set without a search through it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

BLOCK_BYTES = 128
"""Bytes of the bitmap per counted block: 1,024 rows. The counts add 1/16 to its size."""
_BLOCK_ROWS = 8 * BLOCK_BYTES


class RowSet:
    """Rows of a table in ascending order. `rows[n]` is the n-th of them, for an integer or an array of integers."""

    def __init__(self, bits: np.ndarray, num_rows: int) -> None:
        """`bits`: (ceil(num_rows / 8),) uint8 as `numpy.packbits` makes it; what is behind the last row is 0."""
        blocks = max(1, -(-num_rows // _BLOCK_ROWS))
        padded = np.zeros(blocks * BLOCK_BYTES, dtype=np.uint8)
        padded[: len(bits)] = bits
        self._bits = padded.reshape(blocks, BLOCK_BYTES)
        counts = np.bitwise_count(padded.view(np.uint64)).reshape(blocks, -1).sum(axis=1, dtype=np.int64)
        self._before = np.concatenate(([0], np.cumsum(counts)))  # rows of the set before each block
        self._num_rows = num_rows

    @classmethod
    def of(cls, masks: Iterable[np.ndarray], num_rows: int) -> RowSet:
        """The rows at which the boolean masks, one after the other, are True. All but the last have a length that is a
        multiple of 8."""
        packed = [np.packbits(mask) for mask in masks]
        return cls(np.concatenate(packed) if packed else np.empty(0, dtype=np.uint8), num_rows)

    def __len__(self) -> int:
        return int(self._before[-1])

    def __getitem__(self, place: int | np.integer | np.ndarray) -> np.ndarray:
        """The rows at `place`, int64 in its shape. Raises IndexError outside 0..len-1."""
        places = np.asarray(place, dtype=np.int64)
        flat = places.reshape(-1)
        if flat.size and (flat.min() < 0 or flat.max() >= len(self)):
            raise IndexError(f"{len(self)} rows, asked for {int(flat.min())} to {int(flat.max())}")
        blocks = np.searchsorted(self._before, flat, side="right") - 1
        rows = np.empty_like(flat)
        for block in np.unique(blocks):
            inside = blocks == block
            members = np.flatnonzero(np.unpackbits(self._bits[block]))
            rows[inside] = block * _BLOCK_ROWS + members[flat[inside] - self._before[block]]
        return rows.reshape(places.shape)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """All rows, (n,) int64: 8 bytes each, for tests and tools."""
        rows = np.flatnonzero(np.unpackbits(self._bits.reshape(-1))[: self._num_rows])
        return rows if dtype is None else rows.astype(dtype)

    def count_before(self, rows: np.ndarray) -> np.ndarray:
        """How many rows of the set are smaller than each of `rows` (n,) int64, which are 0 to the number of rows."""
        blocks, rest = np.divmod(np.asarray(rows, dtype=np.int64), _BLOCK_ROWS)
        last = np.minimum(blocks, len(self._bits) - 1)  # a row behind the last block begins a block of its own
        counts = np.empty(len(blocks), dtype=np.int64)
        for start in range(0, len(blocks), 1 << 14):  # 14 MB at a time
            part = slice(start, start + (1 << 14))
            bits = np.unpackbits(self._bits[last[part]], axis=1)
            ahead = np.arange(_BLOCK_ROWS) < rest[part, None]
            counts[part] = (bits & ahead).sum(axis=1)
        return self._before[blocks] + counts
