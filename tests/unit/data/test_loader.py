from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pokevla.data.batch import FeatureSource, RobotBatch
from pokevla.data.dataset import open_dataset
from pokevla.data.images.decoding import decode_image, decode_mask, decode_pixels
from pokevla.data.images.transforms import centre_crop_box, crop_mask, crop_pixels, cut_box, draw_augmentation
from pokevla.data.loader import TrainLoader, build_loader, validation_batches
from pokevla.data.mixture import open_mixture
from pokevla.data.reader import ShardReader
from pokevla.data.samples import RobotSampleMaker, VLMSampleMaker
from pokevla.data.sources.libero_vlm import LiberoVLMSettings, convert_libero_vlm
from pokevla.data.tables.questions import SAMPLE_SCHEMA
from pokevla.data.writer import DatasetWriter
from pokevla.errors import DataError
from pokevla.features.layout import FieldLayout
from pokevla.recipe.schema import PosttrainRecipe, PretrainRecipe
from tests.toys import write_toy_questions


def robot_recipe(*roots: Path, **data: Any) -> PosttrainRecipe:
    return PosttrainRecipe.model_validate(
        {
            "kind": "posttrain",
            "name": "t",
            "data": {"datasets": [{"path": str(root)} for root in roots], **data},
            "optim": {"lr": 1e-3},
            "batch": {"global": 8, "micro": 2},
            "steps": 1,
        }
    )


def robot_loader(
    recipe: PosttrainRecipe,
    tokenizer: Any,
    *,
    rank: int = 0,
    world_size: int = 1,
    start_position: int = 0,
    mask_size: int | None = 8,
    features: list[FeatureSource | None] | None = None,
) -> TrainLoader[RobotBatch]:
    mixture = open_mixture(recipe.data, "robot")
    samples = RobotSampleMaker(mixture, recipe.seed, tokenizer, 16, mask_size, features)
    return build_loader(recipe, mixture, samples, rank=rank, world_size=world_size, start_position=start_position)


def test_batches_have_the_shapes_and_ranges_of_the_contract(robot_dataset: Callable[..., Path], tokenizer: Any) -> None:
    root = robot_dataset()
    with robot_loader(robot_recipe(root), tokenizer) as loader:
        batch = next(loader)
    assert batch.pixel_values.shape == (2, 2, 3, 16, 16)
    assert batch.actions.shape == (2, 8, 7)
    assert batch.proprio.shape == (2, 8)
    assert batch.masks is not None
    assert batch.masks.shape == (2, 2, 8, 8)
    assert set(batch.masks.unique().tolist()) == {0.0, 1.0}
    assert batch.crop_boxes.shape == (2, 2, 4)
    assert batch.pixel_values.dtype == batch.masks.dtype == torch.uint8
    assert batch.colours is not None
    assert batch.colours.hue is not None
    assert batch.colours.hue.shape == (2, 2)
    assert 0 < batch.colours.hue.abs().max() <= 0.05
    assert batch.actions.abs().max() <= 1
    assert batch.features == {}
    assert batch.attention_mask.dtype == torch.bool


def test_samples_carry_their_own_actions_and_state(robot_dataset: Callable[..., Path], tokenizer: Any) -> None:
    root = robot_dataset()
    dataset = open_dataset(root)
    assert dataset.episodes is not None
    assert dataset.statistics is not None
    episodes = {e["episode"]: e for e in dataset.episodes.to_pylist()}
    rows = {row["key"]: row for row in dataset.samples.to_pylist()}
    with robot_loader(robot_recipe(root), tokenizer) as loader:
        for _, batch in zip(range(5), loader, strict=False):
            for i, key in enumerate(batch.keys):
                row = rows[key]
                assert row["split"] == "train"
                raw = np.array(episodes[row["episode"]]["actions"])[row["frame"] : row["frame"] + 8]
                assert torch.equal(batch.actions[i], torch.from_numpy(dataset.statistics.normalise_actions(raw)))
                proprio = dataset.statistics.normalise_proprio(np.array(row["proprio"], dtype=np.float32))
                assert batch.proprio[i].numpy() == pytest.approx(proprio, abs=1e-6)


def collect(recipe: PosttrainRecipe, tokenizer: Any, world: int, start: int, steps: int) -> dict[int, Any]:
    """Position -> (key, pixels, masks) over all ranks."""
    seen: dict[int, Any] = {}
    for rank in range(world):
        with robot_loader(recipe, tokenizer, rank=rank, world_size=world, start_position=start) as loader:
            for _ in range(steps * 8 // (2 * world)):
                batch = next(loader)
                assert batch.masks is not None
                for i, position in enumerate(batch.positions.tolist()):
                    seen[position] = (batch.keys[i], batch.pixel_values[i], batch.masks[i])
            assert loader.position == start + steps * 8
    return seen


def same(a: dict[int, Any], b: dict[int, Any]) -> bool:
    return a.keys() == b.keys() and all(
        a[p][0] == b[p][0] and torch.equal(a[p][1], b[p][1]) and torch.equal(a[p][2], b[p][2]) for p in a
    )


def test_world_size_and_threads_do_not_change_what_is_seen(robot_dataset: Callable[..., Path], tokenizer: Any) -> None:
    root = robot_dataset()
    one = collect(robot_recipe(root), tokenizer, world=1, start=0, steps=3)
    assert sorted(one) == list(range(24))
    assert same(one, collect(robot_recipe(root, reader_threads=4), tokenizer, world=2, start=0, steps=3))
    assert same(one, collect(robot_recipe(root, prefetch_batches=1), tokenizer, world=4, start=0, steps=3))


def test_resuming_at_a_position_goes_on_where_it_stopped(robot_dataset: Callable[..., Path], tokenizer: Any) -> None:
    recipe = robot_recipe(robot_dataset())
    whole = collect(recipe, tokenizer, world=1, start=0, steps=3)
    rest = collect(recipe, tokenizer, world=2, start=16, steps=1)
    assert same({p: v for p, v in whole.items() if p >= 16}, rest)


def test_a_mixture_goes_on_in_the_same_order_on_other_ranks(robot_dataset: Callable[..., Path], tokenizer: Any) -> None:
    """On two ranks, then one, then four, each position has the same sample as on a single rank."""
    first = robot_dataset()
    recipe = robot_recipe(first, first)
    weighted = [
        source.model_copy(update={"weight": w}) for source, w in zip(recipe.data.datasets, (3.0, 1.0), strict=True)
    ]
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"datasets": weighted})})
    whole = collect(recipe, tokenizer, world=1, start=0, steps=3)
    parts = {}
    for start, world in ((0, 2), (8, 1), (16, 4)):
        parts |= collect(recipe, tokenizer, world=world, start=start, steps=1)
    assert same(whole, parts)


def test_a_rank_gets_its_slice_of_every_micro_step() -> None:
    loader = TrainLoader[Any](lambda p: p, rank=1, world_size=2, micro=2, start_position=8)
    with loader:
        assert [next(loader).tolist() for _ in range(4)] == [[10, 11], [14, 15], [18, 19], [22, 23]]


def test_an_error_arrives_at_the_turn_of_its_sample() -> None:
    def make(positions: np.ndarray) -> Any:
        if 5 in positions:
            raise DataError("shard is corrupted")
        return positions

    with TrainLoader[Any](make, rank=0, world_size=1, micro=1, threads=3, prefetch=8) as loader:
        assert [next(loader)[0] for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(DataError, match="shard is corrupted"):
            next(loader)


def test_no_more_than_prefetch_batches_are_made_ahead() -> None:
    made: list[int] = []
    reached = threading.Event()

    def make(positions: np.ndarray) -> Any:
        made.append(int(positions[0]))
        if len(made) == 4:
            reached.set()
        return positions

    with TrainLoader[Any](make, rank=0, world_size=1, micro=1, threads=2, prefetch=4) as loader:
        next(loader)
        assert reached.wait(10)
        assert max(made) == 3


def test_a_corrupted_shard_reaches_the_caller(robot_dataset: Callable[..., Path], tokenizer: Any) -> None:
    root = robot_dataset()
    for shard in (root / "shards").glob("*.tar"):
        shard.write_bytes(shard.read_bytes()[:2000])
    with robot_loader(robot_recipe(root), tokenizer) as loader, pytest.raises(DataError, match="truncated"):
        next(loader)


def test_blank_images_are_zero_and_nothing_else_changes(robot_dataset: Callable[..., Path], tokenizer: Any) -> None:
    root = robot_dataset()
    with robot_loader(robot_recipe(root), tokenizer) as seeing:
        a = next(seeing)
    with robot_loader(robot_recipe(root, blank_images=True), tokenizer) as blind:
        b = next(blind)
    assert a.pixel_values.any()
    assert not b.pixel_values.any()
    assert a.keys == b.keys
    assert torch.equal(a.actions, b.actions)
    assert torch.equal(a.crop_boxes, b.crop_boxes)


def test_crops_at_whole_pixels_are_those_of_pixels_masks_and_features(
    robot_dataset: Callable[..., Path], tokenizer: Any
) -> None:
    root = robot_dataset()
    recipe = robot_recipe(root, image_filter="bilinear_torch")
    rows = {key: row for row, key in enumerate(open_dataset(root).samples["key"].to_pylist())}
    moved = 0
    with robot_loader(recipe, tokenizer) as loader:
        for _ in range(6):
            batch = next(loader)
            assert batch.masks is not None
            for i, (key, position) in enumerate(zip(batch.keys, batch.positions.tolist(), strict=True)):
                members = ShardReader(open_dataset(root)).read(rows[key])
                pixels, mask = decode_pixels(members["base.jpg"], ""), decode_mask(members["base.mask.png"], "")
                drawn = draw_augmentation(recipe.data.augment, recipe.seed, position, 0).crop_box
                box = cut_box(drawn, (pixels.shape[1], pixels.shape[0]), "bilinear_torch")
                moved += box != drawn
                assert batch.crop_boxes[i, 0].tolist() == pytest.approx(box, abs=1e-7)
                assert np.array_equal(batch.pixel_values[i, 0], crop_pixels(pixels, box, 16, "bilinear_torch"))
                assert np.array_equal(batch.masks[i, 0], crop_mask(mask, box, 8))
    assert moved


def test_masks_asked_of_a_dataset_without_them_are_refused(robot_dataset: Callable[..., Path], tokenizer: Any) -> None:
    root = robot_dataset(ours=False)
    with pytest.raises(DataError, match=r"no masks.*loss\.segmentation\.weight=0"):
        robot_loader(robot_recipe(root), tokenizer)
    with robot_loader(robot_recipe(root), tokenizer, mask_size=None) as loader:
        assert next(loader).masks is None


def test_two_datasets_with_equal_keys_are_mixed_without_confusion(
    robot_dataset: Callable[..., Path], tokenizer: Any
) -> None:
    roots = [robot_dataset("a", seed=0), robot_dataset("b", seed=1)]
    tables = [open_dataset(root) for root in roots]
    keys = [table.samples["key"].to_pylist() for table in tables]
    assert keys[0] == keys[1]
    recipe = robot_recipe(*roots, augment={"crop_area": 1.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0})
    mixture = open_mixture(recipe.data, "robot")
    order, seen = mixture.order(recipe.seed), set()
    with robot_loader(recipe, tokenizer) as loader:
        for _ in range(12):
            batch = next(loader)
            datasets, places, _ = order.samples_at(batch.positions.numpy())
            for i, (dataset, row) in enumerate(zip(datasets, mixture.rows_at(datasets, places), strict=True)):
                members = ShardReader(tables[dataset]).read(int(row))
                picture = decode_image(members["base.jpg"], "").resize((16, 16), Image.Resampling.BILINEAR)
                stored = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
                assert (batch.pixel_values[i, 0].int() - stored.int()).abs().max() <= 2
                seen.add((int(dataset), batch.keys[i]))
    assert any((1 - dataset, key) in seen for dataset, key in seen), "one key of both datasets"


class Features:
    """Cached features that identify their sample."""

    fields = (
        FieldLayout("sam", "sam", (2, 3, 8, 8), "int8_channel64"),
        FieldLayout("depth", "depth", (2, 4, 6), "fp16"),
    )

    def __init__(self, root: Path) -> None:
        self._rows = open_dataset(root).rows

    def ahead(self, rows: Sequence[int]) -> None:
        """Nothing to gain."""

    def read_row(self, row: int, buffers: Sequence[memoryview]) -> None:
        sam, depth, scales = (
            np.frombuffer(buffer, kind) for buffer, kind in zip(buffers, ("i1", "f2", "f2"), strict=True)
        )
        sam[:], depth[:], scales[:] = self._rows.number("frame", row), 0.0, 1.0


def test_features_are_those_of_the_sample(robot_dataset: Callable[..., Path], tokenizer: Any) -> None:
    root = robot_dataset()
    with robot_loader(robot_recipe(root), tokenizer, features=[Features(root)]) as loader:
        batch = next(loader)
    assert {name: features.codec for name, features in batch.features.items()} == {
        "sam": "int8_channel64",
        "depth": "fp16",
    }
    assert batch.features["depth"].scales is None
    assert batch.features["sam"].values[:, 0, 0, 0, 0].tolist() == [int(key[-4:]) for key in batch.keys]


def test_mixture_with_other_features_per_dataset_is_refused(robot_dataset: Callable[..., Path], tokenizer: Any) -> None:
    root = robot_dataset()
    with pytest.raises(DataError, match="different cached features"):
        robot_loader(robot_recipe(root, root), tokenizer, features=[Features(root), None], mask_size=None)


def test_validation_goes_through_the_split_once_without_augmentation(
    robot_dataset: Callable[..., Path], tokenizer: Any
) -> None:
    recipe = robot_recipe(robot_dataset())
    mixture = open_mixture(recipe.data, "robot")
    samples = RobotSampleMaker(mixture, recipe.seed, tokenizer, 16, 8)
    batches = list(validation_batches(mixture, samples, 4))
    assert [b.size for b in batches] == [4, 4, 3]
    assert batches[0].crop_boxes[0, 0].tolist() == pytest.approx(centre_crop_box(0.9))
    few = list(validation_batches(mixture, samples, 4, max_samples=3))
    assert [k[-4:] for k in few[0].keys] == ["0000", "0005", "0010"]


def test_vlm_batches_train_on_answers_about_whole_pictures(
    tmp_path: Path, scenes_file: Callable[..., Path], tokenizer: Any
) -> None:
    root = convert_libero_vlm(LiberoVLMSettings([scenes_file()], tmp_path / "vlm"))
    recipe = PretrainRecipe.model_validate(
        {**robot_recipe(root).model_dump(by_alias=True, exclude={"cache", "loss"}), "kind": "pretrain"}
    )
    mixture = open_mixture(recipe.data, "vlm")
    samples = VLMSampleMaker(mixture, recipe.seed, tokenizer, 16)
    with build_loader(recipe, mixture, samples, rank=0, world_size=1, start_position=0) as loader:
        batch = next(loader)
    assert batch.pixel_values.shape == (2, 1, 3, 16, 16)
    assert batch.labels.shape == batch.input_ids.shape
    answers = dict(zip(*(open_dataset(root).samples[c].to_pylist() for c in ("key", "answer")), strict=True))
    for i, key in enumerate(batch.keys):
        trained = batch.labels[i][batch.labels[i] != -100]
        assert len(trained) == len(answers[key]) + 1  # one id per character and the end of the turn
    with pytest.raises(DataError, match="is a vlm dataset"):
        robot_loader(robot_recipe(root), tokenizer)


def test_only_images_twice_as_large_as_needed_are_reduced_by_the_decoder(
    tmp_path: Path, scenes_file: Callable[..., Path], tokenizer: Any
) -> None:
    root = convert_libero_vlm(LiberoVLMSettings([scenes_file()], tmp_path / "vlm"))
    side = int(open_dataset(root).samples["width"][0].as_py())

    def pixels(reduce_in_decoder: bool, size: int) -> np.ndarray:
        values = robot_recipe(root, reduce_in_decoder=reduce_in_decoder).model_dump(by_alias=True)
        mixture = open_mixture(PretrainRecipe.model_validate(
            {**{name: value for name, value in values.items() if name not in ("cache", "loss")}, "kind": "pretrain"}
        ).data, "vlm")  # fmt: skip
        places = np.arange(2)
        samples = VLMSampleMaker(mixture, 0, tokenizer, size)
        return samples.batch(places, np.zeros(2, np.int64), places, augment=False).pixel_values.numpy().astype(int)

    just_too_large = side // 2 + 1
    np.testing.assert_array_equal(pixels(True, just_too_large), pixels(False, just_too_large))
    whole, reduced = pixels(False, side // 2), pixels(True, side // 2)
    assert 0 < np.abs(whole - reduced).mean() < 12  # drawn edges differ more than a photograph does


def test_sorting_by_length_changes_the_order_within_global_batches_only(tmp_path: Path, tokenizer: Any) -> None:
    root = write_toy_questions(tmp_path / "vlm", 64)
    recipes = [
        PretrainRecipe.model_validate(
            {
                **robot_recipe(root, sort_by_length=is_sorted).model_dump(by_alias=True, exclude={"cache", "loss"}),
                "kind": "pretrain",
            }
        )
        for is_sorted in (False, True)
    ]

    def seen(recipe: PretrainRecipe, world: int) -> tuple[list[list[tuple[int, str]]], int]:
        """(positions and keys of each of four global batches of 8, padding)."""
        mixture = open_mixture(recipe.data, "vlm")
        samples = VLMSampleMaker(mixture, recipe.seed, tokenizer, 16)
        steps: list[list[tuple[int, str]]] = [[] for _ in range(4)]
        padding = 0
        for rank in range(world):
            with build_loader(recipe, mixture, samples, rank=rank, world_size=world, start_position=0) as loader:
                for step in steps:
                    for _ in range(8 // 2 // world):
                        batch = next(loader)
                        padding += int((~batch.attention_mask).sum())
                        step += zip(batch.positions.tolist(), batch.keys, strict=True)
        return [sorted(step) for step in steps], padding

    (plain, padding), (one, less), (two, same_padding) = seen(recipes[0], 1), seen(recipes[1], 1), seen(recipes[1], 2)
    assert plain == one == two
    assert less == same_padding < padding / 2


def test_questions_without_image_are_mixed_with_others(tmp_path: Path, tokenizer: Any) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (20, 10), (255, 0, 0)).save(picture, "JPEG")
    with DatasetWriter(tmp_path / "vlm", group="vlm", samples=SAMPLE_SCHEMA) as writer:
        for k in range(8):
            size = {"width": 20, "height": 10} if k % 2 else {"width": 0, "height": 0}
            words = {"split": "train", "source": "toy", "category": "general", "task": "qa", "answer_kind": "text"}
            members = {"json": b"{}"} | ({"jpg": picture.getvalue()} if k % 2 else {})
            writer.add_sample(f"q{k}", members, {**words, **size, "question": "what", "answer": "red"})
        writer.finish({"statistics": None, "sources": [], "made_by": {}})
    base = robot_recipe(tmp_path / "vlm").model_dump(by_alias=True, exclude={"cache", "loss"})
    recipe = PretrainRecipe.model_validate({**base, "kind": "pretrain"})
    mixture = open_mixture(recipe.data, "vlm")
    samples = VLMSampleMaker(mixture, recipe.seed, tokenizer, 16)
    rows = np.arange(4)
    batch = samples.batch(rows, np.zeros(4, dtype=np.int64), rows, augment=False)
    assert batch.num_images is not None
    assert batch.present is not None
    assert batch.num_images.tolist() == [0, 1, 0, 1]
    assert batch.present.tolist() == [1, 3]
    assert batch.pixel_values.flatten(1).amax(dim=1).bool().tolist() == [False, True, False, True]
    with_images = samples.batch(rows[:2], np.zeros(2, dtype=np.int64), np.array([1, 3]), augment=False)
    assert with_images.num_images is None
    assert with_images.present is None
