from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pokevla.data.order import Order
from pokevla.errors import DataError

SHARDS = st.lists(st.integers(1, 12), min_size=1, max_size=9)


@settings(max_examples=60, deadline=None)
@given(SHARDS, st.integers(1, 5), st.integers(0, 2**40), st.integers(0, 3))
def test_every_epoch_is_a_permutation(shards: list[int], window: int, seed: int, epoch: int) -> None:
    size = sum(shards)
    order = Order(seed, [shards], [1.0], window, ["f"])
    _, indices, epochs = order.samples_at(np.arange(epoch * size, (epoch + 1) * size))
    assert sorted(indices.tolist()) == list(range(size))
    assert set(epochs.tolist()) == {epoch}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(SHARDS, min_size=1, max_size=4),
    st.lists(st.floats(0.01, 10.0), min_size=4, max_size=4),
    st.permutations(range(60)),
)
def test_order_does_not_depend_on_how_it_is_asked(
    shards: list[list[int]], weights: list[float], asked: list[int]
) -> None:
    names = [str(i) for i in range(len(shards))]
    weights = weights[: len(shards)]
    together = Order(7, shards, weights, 2, names).samples_at(np.arange(60))
    fresh = Order(7, shards, weights, 2, names)
    for position in asked[:10]:
        alone = fresh.samples_at(np.array([position]))
        assert [column.item() for column in alone] == [int(column[position]) for column in together]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.05, 10.0), min_size=1, max_size=5), st.integers(1, 2000), st.integers(0, 99))
def test_mixture_follows_the_weights_at_every_length(weights: list[float], length: int, seed: int) -> None:
    order = Order(seed, [[5, 7]] * len(weights), weights, 2, [str(i) for i in range(len(weights))])
    datasets, _, _ = order.samples_at(np.arange(length))
    counts = np.bincount(datasets, minlength=len(weights))
    # Each split of the chain is off by less than one draw.
    assert np.abs(counts - length * np.array(weights) / sum(weights)).max() <= len(weights) + 1e-3 * length


@settings(max_examples=20, deadline=None)
@given(st.lists(SHARDS, min_size=2, max_size=4), st.integers(0, 99))
def test_each_dataset_of_a_mixture_is_gone_through_in_permutations(shards: list[list[int]], seed: int) -> None:
    order = Order(seed, shards, [1.0, 2.0, 0.5, 3.0][: len(shards)], 2, [str(i) for i in range(len(shards))])
    datasets, indices, epochs = order.samples_at(np.arange(300))
    for dataset, sizes in enumerate(shards):
        first = indices[(datasets == dataset) & (epochs == 0)]
        assert len(set(first.tolist())) == len(first)
        if (epochs[datasets == dataset] > 0).any():
            assert len(first) == sum(sizes)


def test_seed_epoch_and_fingerprint_change_the_order() -> None:
    place = np.arange(100)
    base = Order(0, [[25] * 4], [1.0], 4, ["a"]).samples_at(place)[1]
    assert not np.array_equal(base, Order(1, [[25] * 4], [1.0], 4, ["a"]).samples_at(place)[1])
    assert not np.array_equal(base, Order(0, [[25] * 4], [1.0], 4, ["b"]).samples_at(place)[1])
    assert not np.array_equal(base, Order(0, [[25] * 4], [1.0], 4, ["a"]).samples_at(place + 100)[1])


def test_reads_stay_within_a_window_of_shards() -> None:
    order = Order(3, [[10] * 20], [1.0], 4, ["a"])
    shards = order.samples_at(np.arange(200))[1] // 10
    assert all(len(set(shards[i : i + 40].tolist())) == 4 for i in range(0, 200, 40))


def test_the_order_is_pinned() -> None:
    # If these numbers change, every run resumed with newer code changes. Do not update them lightly.
    order = Order(7, [[4, 4, 4], [5]], [2.0, 1.0], 2, ["a", "b"])
    datasets, indices, epochs = order.samples_at(np.arange(12))
    assert datasets.tolist() == [1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0]
    assert indices.tolist() == [0, 6, 5, 3, 9, 7, 1, 4, 10, 2, 8, 11]
    assert epochs.tolist() == [0] * 12


def test_an_empty_dataset_or_weight_is_refused() -> None:
    with pytest.raises(DataError):
        Order(0, [[]], [1.0], 1, ["a"])
    with pytest.raises(DataError):
        Order(0, [[1]], [0.0], 1, ["a"])
    with pytest.raises(DataError):
        Order(0, [[1]], [1.0, 1.0], 1, ["a"])
