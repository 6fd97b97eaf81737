"""How global batches are divided into micro-batches and packed sequences."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pokevla.data.batch import IGNORED_LABEL, VLMBatch
from pokevla.data.loader import build_loader
from pokevla.data.loading.packing import GlobalBatches, Share, TokenCounts, deal, pack
from pokevla.data.loading.skipping import skipping_damage
from pokevla.data.mixture import open_mixture
from pokevla.data.samples import VLMSampleMaker
from pokevla.recipe.schema import PretrainRecipe
from tests.toys import write_toy_questions
from tests.unit.data.loading.test_skipping import damage_sample

VISION = 4


@given(
    lengths=st.lists(st.integers(1, 900), min_size=1, max_size=12),
    micro=st.integers(1, 6),
    tokens=st.integers(1, 3000),
)
@settings(max_examples=150, deadline=None)
def test_every_sample_has_one_place_and_sequences_keep_the_limit(lengths: list[int], micro: int, tokens: int) -> None:
    sizes = np.array(lengths * micro)
    batches = pack(sizes, len(lengths), micro, tokens)
    assert len(batches) == len(lengths)
    rows = {len(sequences) for sequences in batches}
    assert len(rows) == 1
    assert sorted(np.concatenate([n for sequences in batches for n in sequences]).tolist()) == list(range(len(sizes)))
    assert all(len(sequence) for sequences in batches for sequence in sequences)
    totals = [[int(sizes[sequence].sum()) for sequence in sequences] for sequences in batches]
    assert max(map(max, totals)) <= max(tokens, *lengths)
    flat = [total for each in totals for total in each]
    assert flat == sorted(flat, reverse=True)
    if tokens >= sizes.sum():
        assert rows == {1}


def test_the_load_of_all_bins_is_nearly_equal() -> None:
    lengths = np.minimum(1500, np.random.default_rng(0).lognormal(4.5, 1.0, 128).astype(np.int64)) + 257
    loads = np.bincount(deal(lengths, 32), weights=lengths)
    assert loads.max() <= 1.15 * loads.mean()
    assert lengths.reshape(32, 4).sum(axis=1).max() > 1.25 * loads.mean(), "as they come they are far from equal"


def counted(calls: list[int]) -> Any:
    def counts_at(positions: np.ndarray) -> TokenCounts:
        calls.append(int(positions[0]))
        return TokenCounts(positions % 7 + 5, positions % 5)

    return counts_at


@pytest.mark.parametrize(("average", "divisor"), [("samples", 4.0), ("tokens", None)])
@pytest.mark.parametrize("tokens", [None, 20, 1000])
def test_shares_make_up_the_global_batch(
    average: Literal["samples", "tokens"], divisor: float | None, tokens: int | None
) -> None:
    batches = GlobalBatches(counted([]), 16, 4, tokens=tokens, average=average)
    for step in range(3):
        shares = [batches.share(first) for first in range(16 * step, 16 * (step + 1), 4)]
        positions = np.concatenate([share.positions for share in shares])
        assert sorted(positions.tolist()) == list(range(16 * step, 16 * (step + 1)))
        expected = divisor or float((positions % 5).sum()) / 4
        assert [share.divisor for share in shares] == [expected] * 4
        assert all((share.rows is None) == (tokens is None) for share in shares)


def test_threads_count_a_global_batch_once_and_agree() -> None:
    calls: list[int] = []
    batches = GlobalBatches(counted(calls), 64, 4, tokens=40, average="samples")
    barrier = threading.Barrier(8)

    def ask(number: int) -> Share:
        barrier.wait(timeout=10)
        return batches.share(4 * number)

    with ThreadPoolExecutor(8) as pool:
        shares = list(pool.map(ask, range(8)))
    assert calls == [0]
    again = GlobalBatches(counted([]), 64, 4, tokens=40, average="samples")
    for number, share in enumerate(shares):
        other = again.share(4 * number)
        assert np.array_equal(share.positions, other.positions)
        assert share.rows is not None
        assert other.rows is not None
        assert np.array_equal(share.rows, other.rows)


def test_a_batch_without_trained_tokens_does_not_divide_by_zero() -> None:
    def nothing_trained(positions: np.ndarray) -> TokenCounts:
        return TokenCounts(np.full(len(positions), 9), np.zeros(len(positions), dtype=np.int64))

    assert GlobalBatches(nothing_trained, 8, 2, tokens=None, average="tokens").share(0).divisor == 0.25


def recipe_of(root: Path, **more: Any) -> PretrainRecipe:
    return PretrainRecipe.model_validate(
        {
            "kind": "pretrain",
            "name": "t",
            "data": {"datasets": [{"path": str(root)}]},
            "optim": {"lr": 1e-3},
            "batch": {"global": 8, "micro": 2},
            "steps": 1,
            **more,
        }
    )


def batches_of(recipe: PretrainRecipe, tokenizer: Any, world: int, start: int = 0) -> dict[int, list[VLMBatch]]:
    """Step -> its micro-batches, from `start` to the third step."""
    mixture = open_mixture(recipe.data, "vlm")
    samples = skipping_damage(VLMSampleMaker(mixture, recipe.seed, tokenizer, 16), recipe, mixture)
    steps: dict[int, list[VLMBatch]] = {step: [] for step in range(start // 8, 3)}
    ranks = []
    for rank in range(world):
        place: dict[str, Any] = {"rank": rank, "world_size": world, "start_position": start, "num_vision": VISION}
        with build_loader(recipe, mixture, samples, **place) as loader:
            ranks.append([[next(loader) for _ in range(4 // world)] for _ in steps])
    for number, made in enumerate(steps.values()):
        made += [rank[number][micro] for micro in range(4 // world) for rank in ranks]
    return steps


def test_packed_batches_hold_the_samples_of_padded_ones_whatever_the_ranks(tmp_path: Path, tokenizer: Any) -> None:
    root = write_toy_questions(tmp_path / "vlm", 64)
    padded = batches_of(recipe_of(root), tokenizer, 1)
    recipe = recipe_of(root, packing={"tokens": 1000})
    packed = batches_of(recipe, tokenizer, 1)
    for step, batches in packed.items():
        keys = [sorted(key for batch in each[step] for key in batch.keys) for each in (padded, packed)]
        assert keys[0] == keys[1]
        for batch in batches:
            where = batch.packing
            assert where is not None
            assert batch.loss_divisor == 2
            lengths = batch.attention_mask.sum(dim=1) + VISION
            starts = [int(lengths[:n].sum()) for n in range(batch.size)]
            assert where.start.tolist() == starts
            assert where.row.tolist() == [0] * batch.size
            assert where.blocks == tuple((0, start, start + int(lengths[n])) for n, start in enumerate(starts))
    for others in (
        batches_of(recipe, tokenizer, 2),
        batches_of(recipe, tokenizer, 4),
        batches_of(recipe, tokenizer, 2, 8),
    ):
        for step, batches in others.items():
            for one, other in zip(packed[step], batches, strict=True):
                assert one.keys == other.keys
                assert torch.equal(one.positions, other.positions)
                assert torch.equal(one.input_ids, other.input_ids)
                assert torch.equal(one.pixel_values, other.pixel_values)


def test_the_divisor_of_a_token_mean_counts_the_global_batch(tmp_path: Path, tokenizer: Any) -> None:
    root = write_toy_questions(tmp_path / "vlm", 64)
    for more in ({}, {"packing": {"tokens": 80}}, {"packing": {"tokens": 4000}}):
        for batches in batches_of(recipe_of(root, loss={"average": "tokens"}, **more), tokenizer, 2).values():
            trained = sum(int((batch.labels != IGNORED_LABEL).sum()) for batch in batches)
            assert {batch.loss_divisor for batch in batches} == {trained / 4}


def test_sequences_are_split_at_the_budget(tmp_path: Path, tokenizer: Any) -> None:
    root = write_toy_questions(tmp_path / "vlm", 64)
    whole = batches_of(recipe_of(root, packing={"tokens": 4000}), tokenizer, 1)[0]
    lengths = [n for batch in whole for n in (batch.attention_mask.sum(dim=1) + VISION).tolist()]
    halved = batches_of(recipe_of(root, packing={"tokens": max(lengths)}), tokenizer, 1)[0]
    for batch in halved:
        assert batch.packing is not None
        assert batch.packing.row.tolist() == [0, 1]
        assert batch.packing.start.tolist() == [0, 0]
        assert max(stop for _, _, stop in batch.packing.blocks) <= max(lengths)


def test_the_sample_in_the_place_of_a_damaged_one_is_packed_with_its_own_length(tmp_path: Path, tokenizer: Any) -> None:
    root = write_toy_questions(tmp_path / "vlm", 64)
    recipe = recipe_of(root, packing={"tokens": 1000})
    skipping = {"datasets": [{"path": str(root)}], "damaged": "skip", "max_damaged": 0.2}
    before = batches_of(recipe, tokenizer, 1)
    bad = {damage_sample(root, row) for row in (3, 20, 41)}
    after = [batches_of(recipe_of(root, packing={"tokens": 1000}, data=skipping), tokenizer, world) for world in (1, 2)]
    replaced = 0
    for step, batches in before.items():
        for old, new, other in zip(batches, after[0][step], after[1][step], strict=True):
            assert new.keys == other.keys
            assert torch.equal(old.positions, new.positions)
            assert [key for key in old.keys if key not in bad] == [
                new.keys[place] for place, key in enumerate(old.keys) if key not in bad
            ]
            replaced += len(new.skipped)
            assert new.packing is not None
            lengths = [stop - start for _, start, stop in new.packing.blocks]
            assert lengths == (new.attention_mask.sum(dim=1) + VISION).tolist()
    assert replaced > 0
