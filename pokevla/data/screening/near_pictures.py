"""Pairs of nearly equal pictures among any number of them, without comparing each with each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

NEAR_FREQUENCY = 4
"""Bits of 64 of `frequency_hash` in which nearly equal pictures may differ."""
NEAR_DIFFERENCE = 24
"""Bits of 256 of `picture_hash` in which they may, besides. docs/data.md has what both find."""
LARGEST_RUN = 2048
"""Pictures of a bucket that are compared with each other. In a larger one each is compared with as many that follow."""
_BLOCKS = ((0, 11), (11, 11), (22, 11), (33, 11), (44, 10), (54, 10))
"""First bit and number of bits. At most 4 bits that differ lie in at most 4 of 6 blocks, so 2 blocks are equal."""


def near_pairs(
    frequency: np.ndarray,
    difference: np.ndarray,
    limit: int = NEAR_FREQUENCY,
    difference_limit: int = NEAR_DIFFERENCE,
) -> np.ndarray:
    """(m, 2) int64: pairs i < j that differ in at most `limit` and `difference_limit` bits, ascending.

    Args:
        frequency: (n,) uint64 of `frequency_hash`.
        difference: (n, 32) uint8 of `picture_hash`.
        limit: at most 4.
    """
    if limit > len(_BLOCKS) - 2:
        raise ValueError(f"{limit} bits: buckets find pairs of at most {len(_BLOCKS) - 2} bits")
    words = np.ascontiguousarray(difference).view(np.uint64)
    found = [np.empty((0, 2), np.int64)]
    for one, other in combinations(_BLOCKS, 2):
        buckets = (_block(frequency, *one) << np.uint64(11)) | _block(frequency, *other)
        for pairs in _within_buckets(buckets):
            i, j = pairs.T
            near = np.bitwise_count(frequency[i] ^ frequency[j]) <= limit
            pairs, i, j = pairs[near], i[near], j[near]
            bits = np.bitwise_count(words[i] ^ words[j]).sum(axis=1, dtype=np.int64)
            found.append(pairs[bits <= difference_limit])
    return np.unique(np.concatenate(found), axis=0)


def _block(values: np.ndarray, first: int, count: int) -> np.ndarray:
    return (values >> np.uint64(first)) & np.uint64((1 << count) - 1)


def _within_buckets(buckets: np.ndarray) -> Iterator[np.ndarray]:
    """(k, 2) pairs i < j of equal buckets, a distance within the sorted order at a time."""
    order = np.argsort(buckets, kind="stable")  # equal buckets: by number
    ranked = buckets[order]
    start = np.arange(len(order))
    for distance in range(1, LARGEST_RUN + 1):
        start = start[start + distance < len(order)]
        start = start[ranked[start] == ranked[start + distance]]
        if not len(start):
            return
        yield np.stack([order[start], order[start + distance]], axis=1)


def leaders(pairs: np.ndarray, count: int) -> np.ndarray:
    """(count,) int64: for each picture the first one that it is near to and that leads itself; else itself.

    Unlike connected components this builds no chains: in a slow film the first and the last frame stay apart.

    Args:
        pairs: (m, 2) of `near_pairs`.
    """
    lead = np.arange(count)
    for earlier, later in pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))].tolist():
        if lead[later] == later and lead[earlier] == earlier:
            lead[later] = earlier
    return lead
