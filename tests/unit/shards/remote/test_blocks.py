"""Requests of a batch: every record lies in one block, and no block is larger than it has to be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pokevla.shards.remote.blocks import joined

RANGES = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 5000), st.integers(1, 400)).map(
        lambda each: (each[0], each[1], each[1] + each[2])
    ),
    max_size=30,
)


@given(RANGES, st.integers(0, 500), st.integers(500, 3000))
def test_every_range_lies_in_one_block_of_bounded_size(ranges: list[tuple[str, int, int]], gap: int, most: int) -> None:
    blocks = joined(ranges, gap, most)
    assert sum(block.uses for block in blocks) == len(ranges)
    for name, start, end in ranges:
        assert any(block.name == name and block.start <= start and end <= block.end for block in blocks)
    assert all(block.end - block.start <= most for block in blocks)
    wanted = sum(end - start for _, start, end in ranges)
    assert sum(block.end - block.start for block in blocks) <= wanted + gap * len(ranges)


def test_close_records_are_one_request_and_the_first_wanted_comes_first() -> None:
    ranges = [("b", 900, 1000), ("a", 0, 100), ("a", 5000, 5100), ("a", 150, 250)]
    blocks = [(block.name, block.start, block.end, block.uses) for block in joined(ranges, 50)]
    assert blocks == [("b", 900, 1000, 1), ("a", 0, 250, 2), ("a", 5000, 5100, 1)]
    assert len(joined(ranges, 49)) == 4
