"""Data of a task: datasets are opened once, with batches for training and validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.toy_run import write_questions
from pokevla.data import mixture
from pokevla.data.batch import tensors_of
from pokevla.data.dataset import Dataset, open_dataset
from pokevla.data.loader import build_loader
from pokevla.data.loading.process_loader import DataProcess
from pokevla.data.mixture import open_mixture
from pokevla.data.sources.libero import LiberoSettings, convert_libero
from pokevla.distributed.environment import RankInfo
from pokevla.errors import DamagedDataError
from pokevla.files.checksums import with_checksum
from pokevla.recipe.checking.recorded import Recorded
from pokevla.recipe.schema import PosttrainRecipe, PretrainRecipe
from pokevla.training.tasks import build_task, build_task_loader, save_statistics
from pokevla.weights.export_files import read_trained_on
from tests.toys import write_toy_dataset, write_toy_questions
from tests.unit.data.conftest import write_libero_file
from tests.unit.data.loading.test_skipping import damage_sample

RANK = RankInfo(1, 2, 1)


def recipe(dataset: Path) -> PretrainRecipe:
    return PretrainRecipe.model_validate(
        {
            "kind": "pretrain",
            "name": "t",
            "data": {"datasets": [{"path": str(dataset)}]},
            "model": {"preset": "tiny"},
            "optim": {"lr": 1e-3},
            "batch": {"global": 8, "micro": 2},
            "steps": 1,
        }
    )


def test_a_rank_opens_each_dataset_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    def count(root: Path, **settings: Any) -> Dataset:
        opened.append(root)
        return open_dataset(root, **settings)

    monkeypatch.setattr(mixture, "open_dataset", count)
    job = recipe(write_toy_questions(tmp_path / "toy"))
    task = build_task(job, RANK)
    with build_loader(job, task.mixture, task.samples, rank=1, world_size=2, start_position=8) as loader:
        batch = next(loader)
    assert batch.positions.tolist() == [10, 11]
    assert opened == [tmp_path / "toy"]
    assert [held_out.size for held_out in task.validation] == [2, 2]  # 8 samples of split val, two ranks
    assert not {key for held_out in task.validation for key in held_out.keys} & set(batch.keys)


def test_the_process_of_a_rank_makes_the_batches_that_threads_make(tmp_path: Path) -> None:
    for job in (recipe(write_toy_questions(tmp_path / "vlm")), posttrain(write_toy_dataset(tmp_path / "robot"))):
        task, position = build_task(job, RANK), 2 * job.batch.global_
        process = DataProcess(job.data.prefetch_batches)
        with (
            build_task_loader(job, task, RANK, position, None, pin=False) as threads,
            build_task_loader(job, task, RANK, position, process, pin=False) as loader,
        ):
            for _ in range(6):
                one, other = next(threads), next(loader)
                assert one.keys == other.keys
                assert one.positions.equal(other.positions)
                pairs = zip(tensors_of(one), tensors_of(other), strict=True)
                assert all(a.dtype == b.dtype and a.equal(b) for a, b in pairs)
            assert threads.position == loader.position
            assert set(loader.meter.take()) == {"data_ahead", "data_mib_per_s", "data_cpu_share", "data_slowest_read_s"}


def test_damaged_samples_are_replaced_alike_in_the_process_and_in_threads(tmp_path: Path) -> None:
    root = write_toy_dataset(tmp_path / "robot")
    job = posttrain(root)
    row = int(open_mixture(job.data, "robot").train_rows[0][5])
    bad = damage_sample(root, row)
    with pytest.raises(DamagedDataError):
        read_batches(job, None, 60)
    skipping = job.model_copy(update={"data": job.data.model_copy(update={"damaged": "skip", "max_damaged": 0.05})})
    threads = read_batches(skipping, None, 60)
    process = read_batches(skipping, DataProcess(job.data.prefetch_batches), 60)
    assert threads == process
    keys, counts = threads
    assert bad not in keys
    assert counts.keys() == {str(root / "shards" / open_dataset(root).shard_names[0])}
    assert sum(counts.values()) >= 1


def read_batches(job: PosttrainRecipe, process: DataProcess | None, count: int) -> tuple[list[str], dict[str, int]]:
    """Keys of the batches of the only rank, and its replaced samples by shard."""
    only = RankInfo(0, 1, 0)
    with build_task_loader(job, build_task(job, only), only, 0, process, pin=False) as loader:
        keys = [key for _ in range(count) for key in next(loader).keys]
        return keys, loader.meter.take_skipped()


def test_without_samples_to_hold_out_there_is_no_validation(tmp_path: Path) -> None:
    assert build_task(recipe(write_questions(tmp_path / "toy", count=16, seed=0)), RANK).validation == []


def posttrain(*datasets: Path) -> PosttrainRecipe:
    return PosttrainRecipe.model_validate(
        {
            "kind": "posttrain",
            "name": "t",
            "data": {"datasets": [{"path": str(dataset)} for dataset in datasets], "chunk_length": 4},
            "model": {"preset": "tiny"},
            "optim": {"lr": 1e-3},
            "batch": {"global": 4, "micro": 2},
            "steps": 4,
            "loss": {"geometry": 0, "segmentation": {"weight": 0}},
        }
    )


def published(folder: Path, val_fraction: float = 0.0) -> Path:
    """A dataset of a file without splits."""
    path = folder / "raw/libero_object/pick_up_the_milk_and_place_it_in_the_basket_demo.hdf5"
    source = write_libero_file(path, demos=2, frames=8, side=16, ours=False)
    return convert_libero(LiberoSettings(source, folder / "dataset", val_fraction=val_fraction, noops="keep"))


def test_the_converter_s_default_without_val_trains_without_validation(tmp_path: Path) -> None:
    task = build_task(posttrain(published(tmp_path)), RANK)
    assert task.validation == []
    assert task.mixture.sizes == [8]  # 2 episodes of 7 frames, chunks of 4


def test_what_a_mixture_was_recorded_with_is_kept_in_the_run(tmp_path: Path) -> None:
    first, second = published(tmp_path / "a"), published(tmp_path / "b")
    info = json.loads((second / "dataset.json").read_text())
    info["recorded"] = {"image_size": [32], "instructions": ["file"]}
    del info["xxh64"]
    (second / "dataset.json").write_text(json.dumps(with_checksum(info)))
    save_statistics(open_mixture(posttrain(first, second).data, "robot"), tmp_path)
    known = read_trained_on(tmp_path)
    assert known == Recorded(image_size=(16, 32), instructions=("file", "task")), "rendering of the second is unknown"
    assert read_trained_on(tmp_path / "a") == Recorded(), "a run of an earlier version"


def test_a_mixture_in_which_one_dataset_has_no_val_is_validated_on_the_other(tmp_path: Path) -> None:
    without, with_val = published(tmp_path / "a"), published(tmp_path / "b", val_fraction=0.5)
    task = build_task(posttrain(without, with_val), RANK)
    assert [batch.size for batch in task.validation] == [2]
    assert task.mixture.samples_of("val").pairs(np.arange(4))[:, 0].tolist() == [1] * 4


def test_val_episodes_shorter_than_the_chunk_are_no_validation(tmp_path: Path) -> None:
    raw = tmp_path / "raw/libero_object"
    for name, frames, split in (("milk", 8, "train"), ("ketchup", 3, "val")):
        path = raw / f"pick_up_the_{name}_and_place_it_in_the_basket_demo.hdf5"
        write_libero_file(path, demos=2, frames=frames, side=16, splits=(split,))
    dataset = convert_libero(LiberoSettings(raw, tmp_path / "dataset"))
    task = build_task(posttrain(dataset), RANK)
    assert task.validation == []
    assert task.mixture.sizes == [10]
