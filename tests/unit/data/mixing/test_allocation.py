"""Sharing a budget: sums, bounds, proportions."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pokevla.data.mixing.allocation import paired_shares, root_weights, share_budget

SETS = st.lists(
    st.tuples(st.integers(0, 10**7), st.integers(0, 10**7), st.one_of(st.just(0.0), st.floats(1e-3, 1e4))),
    min_size=1,
    max_size=30,
)


def bounds(sets: list[tuple[int, int, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    least = np.array([min(one, other) for one, other, _ in sets], dtype=np.int64)
    most = np.array([max(one, other) for one, other, _ in sets], dtype=np.int64)
    return np.array([weight for _, _, weight in sets]), least, most


@given(SETS, st.integers(1, 10**8))
def test_shares_add_up_to_the_budget_or_to_all_there_is_within_their_bounds(
    sets: list[tuple[int, int, float]], total: int
) -> None:
    weights, least, most = bounds(sets)
    shares = share_budget(total, weights, least, most)
    assert shares.sum() == min(total, most.sum())
    assert (shares <= most).all()
    assert (shares >= 0).all()
    if least.sum() <= total:
        assert (shares >= least).all()
    else:  # the floors themselves are shared out: a smaller one is never cut for a larger one
        assert (shares <= least).all()
        cut = shares[shares < least]
        assert len(cut) == 0 or (shares <= cut.min() + 1).all()


@given(SETS, st.integers(1, 10**8))
def test_what_is_between_its_bounds_is_in_proportion_to_the_weights(
    sets: list[tuple[int, int, float]], total: int
) -> None:
    weights, least, most = bounds(sets)
    shares = share_budget(total, weights, least, most)
    free = (shares > least) & (shares < most) & (weights > 0)
    if least.sum() > total or (most[weights > 0].sum() + least[weights == 0].sum() < total):
        return
    for one in np.flatnonzero(free):
        for other in np.flatnonzero(free):  # each is rounded by less than one
            assert (shares[one] - 1) / weights[one] <= (shares[other] + 1) / weights[other] * (1 + 1e-9)
    full = (shares == most) & (weights > 0) & (most > least)
    for one in np.flatnonzero(full):  # a set that is used up would have been given at least as much
        for other in np.flatnonzero(free):
            assert (shares[one] - 1) / weights[one] <= (shares[other] + 1) / weights[other] * (1 + 1e-9)


@given(SETS, st.integers(1, 10**8), st.randoms(use_true_random=False))
def test_the_order_of_the_sets_moves_at_most_the_rounding(
    sets: list[tuple[int, int, float]], total: int, random: object
) -> None:
    order = list(range(len(sets)))
    random.shuffle(order)  # type: ignore[attr-defined]
    weights, least, most = bounds(sets)
    shares = share_budget(total, weights, least, most)
    shuffled = share_budget(total, weights[order], least[order], most[order])
    assert np.abs(shares[order] - shuffled).max() <= 1


def test_what_an_exhausted_set_leaves_goes_to_the_others_in_proportion() -> None:
    sizes = np.array([400, 10_000, 40_000])
    weights = root_weights(sizes, 0.5, np.ones(3))
    assert weights.tolist() == [20.0, 100.0, 200.0]
    none = np.zeros(3, dtype=np.int64)
    assert share_budget(3_200, weights, none, sizes).tolist() == [200, 1_000, 2_000]
    assert share_budget(9_400, weights, none, sizes).tolist() == [
        400,
        3_000,
        6_000,
    ]  # 588 would be the share of the first
    assert share_budget(9_400, weights, np.array([0, 5_000, 0]), sizes).tolist() == [400, 5_000, 4_000]
    assert share_budget(60_000, weights, none, sizes).tolist() == sizes.tolist()
    assert share_budget(90, weights, np.array([10, 100, 100]), sizes).tolist() == [10, 40, 40]


def test_weights_beyond_reason_end_too() -> None:
    most = np.array([10**7, 10**7, 5])
    for weights in ([1e-320, 1e300, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1e308]):
        shares = share_budget(10**7 + 1, np.array(weights), np.zeros(3, dtype=np.int64), most)
        assert shares.sum() == 10**7 + 1
        assert (shares <= most).all()
    assert share_budget(5, np.array([]), np.array([], np.int64), np.array([], np.int64)).tolist() == []


def test_exponents_and_factors() -> None:
    sizes = np.array([100, 0, 400])
    assert root_weights(sizes, 1.0, np.ones(3)).tolist() == [100.0, 0.0, 400.0]
    assert root_weights(sizes, 0.0, np.array([1.0, 1.0, 3.0])).tolist() == [1.0, 0.0, 3.0]


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0.0, 1.0))
def test_yes_and_no_are_taken_in_pairs(yes: int, no: int, other: int, part: float) -> None:
    share = int(part * (2 * min(yes, no) + other))
    taken = paired_shares(share, yes, no, other)
    assert sum(taken) == share
    assert 0 <= taken[0] - taken[1] <= 1
    assert all(0 <= count <= there for count, there in zip(taken, (yes, no, other), strict=True))
