"""Nearly equal pictures are found without comparing each with each, and none of them is missed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.data.screening import near_pictures
from pokevla.data.screening.near_pictures import NEAR_DIFFERENCE, NEAR_FREQUENCY, leaders, near_pairs


def flipped(rng: np.random.Generator, value: int, bits: int) -> int:
    for place in rng.choice(64, bits, replace=False):
        value ^= 1 << int(place)
    return value


@given(st.integers(0, 2**32), st.integers(0, 40))
def test_the_pairs_are_those_of_comparing_each_with_each(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    bases = [int(value) for value in rng.integers(0, 2**63, 4)]
    values = [flipped(rng, bases[int(rng.integers(4))], int(rng.integers(0, 5))) for _ in range(count)]
    frequency = np.array(values, np.uint64)
    difference = np.zeros((count, 32), np.uint8)
    difference[:, 0] = rng.integers(0, 256, count)
    difference[rng.random(count) < 0.3] = 255
    expected = [
        (i, j)
        for i in range(count)
        for j in range(i + 1, count)
        if (values[i] ^ values[j]).bit_count() <= NEAR_FREQUENCY
        and np.bitwise_count(difference[i] ^ difference[j]).sum() <= NEAR_DIFFERENCE
    ]
    assert list(map(tuple, near_pairs(frequency, difference).tolist())) == expected


def test_a_limit_that_the_buckets_would_miss_is_refused() -> None:
    with pytest.raises(ValueError, match="5 bits"):
        near_pairs(np.zeros(2, np.uint64), np.zeros((2, 32), np.uint8), limit=5)


def test_a_large_bucket_is_bounded_and_still_led_by_its_first_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_pictures, "LARGEST_RUN", 3)
    pairs = near_pairs(np.zeros(10, np.uint64), np.zeros((10, 32), np.uint8))
    assert len(pairs) == 9 + 8 + 7
    assert leaders(pairs, 10).tolist() == [0, 0, 0, 0, 4, 4, 4, 4, 8, 8]


def test_a_slow_film_is_no_chain() -> None:
    pairs = np.array([(0, 1), (1, 2), (2, 3), (3, 4)])
    assert leaders(pairs, 6).tolist() == [0, 0, 2, 2, 4, 5], "each is near to the one that leads it"
    assert leaders(np.empty((0, 2), np.int64), 3).tolist() == [0, 1, 2]
