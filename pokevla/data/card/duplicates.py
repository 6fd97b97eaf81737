"""Equal and nearly equal images of a dataset, in bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np

MAX_KEPT = 1 << 22
"""Checksums that are kept, 24 bytes each. Of a larger set the same share of all images is kept, chosen by their
checksums, so equal images are kept together and shares stay right."""
NEAR = 12
"""Bits of a picture hash, of 256, in which two nearly equal images may differ: about 5 %. Ours."""

_LISTED_PAIRS = 1000


class EqualImages:
    """Counts images with equal checksums, within and across groups (episodes)."""

    def __init__(self, limit: int = MAX_KEPT) -> None:
        self._limit, self._shift = limit, 0  # kept: checksums whose lowest `shift` bits are zero
        self._parts: list[np.ndarray] = []  # (n, 2) uint64: checksum, group
        self._kept, self.images = 0, 0

    def add(self, checksums: np.ndarray, groups: np.ndarray) -> None:
        """Add images by checksum (n,) uint64 and group (n,) int64 from 0 on."""
        self.images += len(checksums)
        part = np.stack([checksums.astype(np.uint64), groups.astype(np.uint64)], axis=1)
        self._parts.append(self._chosen(part))
        self._kept += len(self._parts[-1])
        while self._kept > self._limit:
            self._shift += 1
            self._parts = [self._chosen(np.concatenate(self._parts))]
            self._kept = len(self._parts[0])

    def _chosen(self, part: np.ndarray) -> np.ndarray:
        mask = np.uint64((1 << self._shift) - 1)
        return part[(part[:, 0] & mask) == 0]

    def to_dict(self) -> dict[str, Any]:
        """`images`; of those looked at (`share_seen` of all): `distinct`, `repeats` (images that equal an earlier
        one), and how many of these equal only images of their own group (`within`) or one of another (`across`).
        `groups`: up to 20 pairs of groups that share most images, as (group, group, images)."""
        kept = np.concatenate(self._parts) if self._parts else np.empty((0, 2), dtype=np.uint64)
        kept = kept[np.lexsort((kept[:, 1], kept[:, 0]))]
        starts = np.flatnonzero(np.append(True, kept[1:, 0] != kept[:-1, 0])) if len(kept) else np.empty(0, np.int64)
        sizes = np.diff(np.append(starts, len(kept)))
        ends = starts + sizes - 1
        is_across = kept[starts, 1] != kept[ends, 1]  # sorted: first and last group of equal images
        repeats = sizes - 1
        pairs = np.stack([kept[starts, 1], kept[ends, 1]], axis=1)[is_across]
        unique, counts = np.unique(pairs, axis=0, return_counts=True)
        most = np.argsort(-counts, kind="stable")[:20]
        return {
            "images": self.images,
            "share_seen": 2.0**-self._shift,
            "distinct": len(starts),
            "repeats": int(repeats.sum()),
            "within": int(repeats[~is_across].sum()),
            "across": int(repeats[is_across].sum()),
            "groups": [[int(unique[i, 0]), int(unique[i, 1]), int(counts[i])] for i in most],
        }


def near_pairs(hashes: np.ndarray, groups: np.ndarray, limit: int = NEAR) -> tuple[int, list[tuple[int, int, int]]]:
    """How many pairs of pictures of different groups differ in at most `limit` bits, and the nearest of them.

    A pair is (i, j, differing bits), i < j.

    Args:
        hashes: (n, 32) uint8 of `picture_hash`.
        groups: (n,) of each picture; frames of one episode resemble each other anyway.
    """
    found: list[tuple[int, int, int]] = []
    total = 0
    words = np.ascontiguousarray(hashes).view(np.uint64)
    for i in range(len(words) - 1):
        bits = np.bitwise_count(words[i + 1 :] ^ words[i]).sum(axis=1)
        others = np.flatnonzero((bits <= limit) & (groups[i + 1 :] != groups[i]))
        total += len(others)
        found += [(i, i + 1 + int(j), int(bits[j])) for j in others]
        if len(found) > _LISTED_PAIRS:
            found = _nearest(found)
    return total, _nearest(found)


def _nearest(pairs: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    return sorted(pairs, key=lambda pair: (pair[2], pair[:2]))[:_LISTED_PAIRS]
