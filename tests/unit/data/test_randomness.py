from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pokevla.data.randomness import _key, raw, uniform

Parts = st.lists(st.one_of(st.integers(), st.text(max_size=8)), max_size=4)


@given(st.lists(st.tuples(st.integers(0, 9), Parts), min_size=1, max_size=6))
def test_numbers_are_those_of_a_new_philox_whatever_was_drawn_before(draws: list[tuple[int, list[int | str]]]) -> None:
    for count, parts in draws:
        assert np.array_equal(raw(count, *parts), np.random.Philox(key=_key(*parts)).random_raw(count))


def test_threads_do_not_disturb_each_other() -> None:
    def draw(position: int) -> list[float]:
        return uniform(3, "augment", position, 0, 5).tolist()

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(draw, list(range(50)) * 20))
    assert together == [draw(position) for position in range(50)] * 20
