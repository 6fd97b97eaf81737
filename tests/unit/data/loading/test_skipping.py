"""Damaged samples stop the training, or others take their places: the same ones for any number of ranks and threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pokevla.data.batch import RobotBatch
from pokevla.data.dataset import open_dataset
from pokevla.data.loader import build_loader, validation_batches
from pokevla.data.loading.memory import page_aligned
from pokevla.data.loading.skipping import MAX_DRAWS, SkippingMaker, skipping_damage
from pokevla.data.mixture import open_mixture
from pokevla.data.samples import RobotSampleMaker
from pokevla.errors import DamagedDataError, DataError
from pokevla.features.layout import FieldLayout
from pokevla.recipe.schema import PosttrainRecipe
from pokevla.shards.index import load_index
from tests.unit.data.test_loader import robot_recipe


def trained_rows(root: Path) -> list[int]:
    """Rows that a training with chunks of 8 draws from."""
    return np.asarray(open_dataset(root).rows.usable("train", 8)).tolist()


def damage_sample(root: Path, row: int) -> str:
    """Flip a byte of the first image of a sample; its key."""
    dataset = open_dataset(root)
    shard, number = dataset.rows.shard_of(row)
    path = root / "shards" / dataset.shard_names[shard]
    entry = load_index(path, "")[number]
    content = bytearray(path.read_bytes())
    content[entry.members[0].offset + 5] ^= 1
    path.write_bytes(content)
    return entry.key


def seen(
    recipe: PosttrainRecipe, tokenizer: Any, batches: int, world: int = 1, features: Sequence[Any] | None = None
) -> dict[int, tuple[str, RobotBatch]]:
    """Position -> (key, its batch) of some batches of every rank."""
    mixture = open_mixture(recipe.data, "robot")
    samples = skipping_damage(RobotSampleMaker(mixture, 0, tokenizer, 16, 8, features), recipe, mixture)
    found: dict[int, tuple[str, RobotBatch]] = {}
    for rank in range(world):
        with build_loader(recipe, mixture, samples, rank=rank, world_size=world, start_position=0) as loader:
            for _ in range(batches // world):
                batch = next(loader)
                found |= {int(p): (key, batch) for p, key in zip(batch.positions, batch.keys, strict=True)}
    return found


def keys_of(found: dict[int, tuple[str, RobotBatch]]) -> dict[int, str]:
    return {position: key for position, (key, _) in found.items()}


def test_another_sample_takes_the_place_of_a_damaged_one_whatever_the_ranks(
    robot_dataset: Callable[..., Path], tokenizer: Any
) -> None:
    root = robot_dataset()
    undamaged = keys_of(seen(robot_recipe(root), tokenizer, 40))
    bad = {damage_sample(root, row) for row in (trained_rows(root)[2], trained_rows(root)[-3])}
    with pytest.raises(DamagedDataError, match=r"is corrupted: the checksum of .*\(it was written after its index\)"):
        seen(robot_recipe(root), tokenizer, 40)
    recipe = robot_recipe(root, damaged="skip", max_damaged=0.2)
    one, two = seen(recipe, tokenizer, 40), keys_of(seen(recipe, tokenizer, 40, world=2))
    assert keys_of(one) == two
    changed = {position for position, key in two.items() if key != undamaged[position]}
    assert changed == {position for position, key in undamaged.items() if key in bad}
    assert not bad & set(two.values())
    assert len({two[position] for position in changed}) > 1, "not always the same one"
    named = [each for _, batch in one.values() for each in batch.skipped]
    assert {each.key for each in named} == bad
    assert {Path(each.shard).name for each in named} == {"libero_object-00000.tar", "libero_object-00002.tar"}
    assert sum("corrupted" in (each.reason or "") for each in {id(each): each for each in named}.values()) == 2


def test_a_replaced_sample_is_whole_and_the_others_of_its_batch_are_untouched(
    robot_dataset: Callable[..., Path], tokenizer: Any
) -> None:
    root = robot_dataset()
    good = seen(robot_recipe(root), tokenizer, 20)
    bad = damage_sample(root, 7)
    position = next(p for p, (key, _) in good.items() if key == bad)
    place = position % 2
    now = seen(robot_recipe(root, damaged="skip"), tokenizer, 20)[position][1]
    before = good[position][1]
    assert now.keys[1 - place] == before.keys[1 - place]
    assert now.pixel_values[1 - place].equal(before.pixel_values[1 - place])
    assert now.actions[1 - place].equal(before.actions[1 - place])
    assert now.positions.equal(before.positions)
    assert now.pixel_values[place].any()
    assert open_dataset(root).samples["key"].to_pylist().index(now.keys[place]) in trained_rows(root)


class DamagedFeatures:
    """Cached features of which one record is damaged."""

    fields = (FieldLayout("depth", "depth", (2, 4, 6), "fp16"),)

    def __init__(self, bad_row: int) -> None:
        self._bad_row = bad_row

    def ahead(self, rows: Sequence[int]) -> None:
        """Nothing to gain."""

    def read_row(self, row: int, buffers: Sequence[memoryview]) -> None:
        if row == self._bad_row:
            raise DamagedDataError("cache/x.tar is corrupted: the checksum of that record differs.")
        np.frombuffer(buffers[0], np.float16)[:] = row


def test_a_damaged_record_of_the_cache_is_replaced_with_its_sample(
    robot_dataset: Callable[..., Path], tokenizer: Any
) -> None:
    root = robot_dataset()
    keys = open_dataset(root).samples["key"].to_pylist()
    found = seen(robot_recipe(root, damaged="skip"), tokenizer, 20, features=[DamagedFeatures(4)])
    assert keys[4] not in keys_of(found).values()
    skipped = {each for _, batch in found.values() for each in batch.skipped}
    assert {(each.key, each.reason) for each in skipped if each.reason} == {
        (keys[4], "cache/x.tar is corrupted: the checksum of that record differs.")
    }
    for key, batch in found.values():
        place = batch.keys.index(key)
        assert int(batch.features["depth"].values[place].flatten()[0]) == keys.index(key)


def test_too_many_damaged_samples_end_the_training_anyway(robot_dataset: Callable[..., Path], tokenizer: Any) -> None:
    root = robot_dataset()
    for row in trained_rows(root)[::2]:
        damage_sample(root, row)
    recipe = robot_recipe(root, damaged="skip", max_damaged=0.05)
    too_many = r"samples that this rank drew are damaged, more than data\.max_damaged=0\.05"
    with pytest.raises(DataError, match=too_many) as told:
        seen(recipe, tokenizer, 40)
    assert not isinstance(told.value, DamagedDataError)
    assert "is corrupted" in told.value.message
    assert "pokevla data verify" in str(told.value)


def test_a_dataset_without_a_good_sample_ends_and_does_not_search_for_ever(
    robot_dataset: Callable[..., Path], tokenizer: Any
) -> None:
    root = robot_dataset()
    for shard in (root / "shards").glob("*.tar"):
        shard.write_bytes(shard.read_bytes()[:600])
    recipe = robot_recipe(root, damaged="skip", max_damaged=1.0)
    with pytest.raises(DataError, match=f"is damaged, and so are {MAX_DRAWS} samples drawn in its place"):
        seen(recipe, tokenizer, 2)


def test_what_is_no_damage_of_a_sample_is_not_skipped(robot_dataset: Callable[..., Path], tokenizer: Any) -> None:
    root = robot_dataset()
    (root / "shards" / "libero_object-00000.tar").unlink()
    with pytest.raises(DataError, match="is missing"):
        seen(robot_recipe(root, damaged="skip", max_damaged=1.0), tokenizer, 20)


def test_a_damaged_held_out_sample_is_replaced_by_another_held_out_one(
    robot_dataset: Callable[..., Path], tokenizer: Any
) -> None:
    recipe = robot_recipe(robot_dataset(), damaged="skip")
    root = recipe.dataset_paths[0]
    table = open_dataset(root)
    row = int(table.rows.usable("val", 8)[2])
    bad = damage_sample(root, row)
    mixture = open_mixture(recipe.data, "robot")
    samples = skipping_damage(RobotSampleMaker(mixture, 0, tokenizer, 16, 8), recipe, mixture)
    keys = [key for batch in validation_batches(mixture, samples, 4) for key in batch.keys]
    held_out = {table.rows.text("key", int(each)) for each in np.asarray(table.rows.usable("val", 8))}
    assert len(keys) == len(held_out)
    assert set(keys) == held_out - {bad}


def test_a_batch_that_is_made_again_takes_no_more_memory(robot_dataset: Callable[..., Path], tokenizer: Any) -> None:
    root = robot_dataset()
    mixture = open_mixture(robot_recipe(root).data, "robot")

    def maker() -> RobotSampleMaker:
        return RobotSampleMaker(mixture, 0, tokenizer, 16, 8)

    def bytes_of(samples: Any) -> tuple[int, RobotBatch]:
        taken = []

        def allocate(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
            taken.append(page_aligned(shape, dtype))
            return taken[-1]

        zeros = np.zeros(3, dtype=np.int64)
        batch = samples.batch(np.arange(3), zeros, np.array([0, 1, 2]), True, allocate)
        return sum(array.nbytes for array in taken), batch

    usual, before = bytes_of(maker())
    damage_sample(root, 1)
    again, after = bytes_of(SkippingMaker(maker(), mixture, 0, 0.5))
    assert again == usual
    assert before.keys[::2] == after.keys[::2]
    assert before.keys[1] != after.keys[1]


def test_damage_that_cannot_be_found_in_a_single_sample_is_raised(
    robot_dataset: Callable[..., Path], tokenizer: Any
) -> None:
    mixture = open_mixture(robot_recipe(robot_dataset()).data, "robot")

    class OnlyTogether(RobotSampleMaker):
        calls = 0

        def batch(
            self, positions: np.ndarray, datasets: np.ndarray, rows: np.ndarray, augment: bool, allocate: Any = None
        ) -> RobotBatch:
            if len(positions) > 1:
                OnlyTogether.calls += 1
                raise DamagedDataError("x.tar is corrupted.")
            return super().batch(positions, datasets, rows, augment)

    samples = SkippingMaker(OnlyTogether(mixture, 0, tokenizer, 16, 8), mixture, 0, 0.5)
    zeros = np.zeros(2, dtype=np.int64)
    with pytest.raises(DamagedDataError):
        samples.batch(np.arange(2), zeros, np.arange(2), True)
    assert OnlyTogether.calls == 2
