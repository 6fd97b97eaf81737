"""Ranges of a batch as few requests: records of a shard that lie close together are one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pokevla.shards.reading import Range

MAX_BLOCK_BYTES = 16 << 20
"""Largest request that is made of several records."""


@dataclass
class Block:
    """Bytes `start` to `end` of a shard, with `uses` records in them."""

    name: str
    start: int
    end: int
    uses: int = 1


def joined(ranges: Sequence[Range], gap_bytes: int, max_bytes: int = MAX_BLOCK_BYTES) -> list[Block]:
    """The blocks that hold all `ranges`, in the order in which the first of their records is wanted.

    Two ranges of a shard share a block if at most `gap_bytes` lie between them, and the block has at most `max_bytes`.
    A single range may have more.
    """
    first = {}
    for place, each in enumerate(ranges):
        first.setdefault(each, place)
    blocks: list[tuple[int, Block]] = []
    for name, start, end in sorted(ranges):
        if blocks:
            place, last = blocks[-1]
            stop = max(last.end, end)
            is_inside = end <= last.end
            if last.name == name and (is_inside or (start - last.end <= gap_bytes and stop - last.start <= max_bytes)):
                last.end, last.uses = stop, last.uses + 1
                blocks[-1] = (min(place, first[name, start, end]), last)
                continue
        blocks.append((first[name, start, end], Block(name, start, end)))
    return [block for _, block in sorted(blocks, key=lambda each: each[0])]
