"""Data of a task: datasets are opened once, with batches for training and validation."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.toy_run import write_questions
from pokevla.data import mixture
from pokevla.data.dataset import Dataset, open_dataset
from pokevla.data.loader import build_loader
from pokevla.distributed.environment import RankInfo
from pokevla.recipe.schema import PretrainRecipe
from pokevla.training.tasks import build_task
from tests.toys import write_toy_questions

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

    def count(root: Path) -> Dataset:
        opened.append(root)
        return open_dataset(root)

    monkeypatch.setattr(mixture, "open_dataset", count)
    job = recipe(write_toy_questions(tmp_path / "toy"))
    task = build_task(job, RANK)
    with build_loader(job, task.mixture, task.samples, rank=1, world_size=2, start_position=8) as loader:
        batch = next(loader)
    assert batch.positions.tolist() == [10, 11]
    assert opened == [tmp_path / "toy"]
    assert [held_out.size for held_out in task.validation] == [2, 2]  # 8 samples of split val, two ranks
    assert not {key for held_out in task.validation for key in held_out.keys} & set(batch.keys)


def test_without_samples_to_hold_out_there_is_no_validation(tmp_path: Path) -> None:
    assert build_task(recipe(write_questions(tmp_path / "toy", count=16, seed=0)), RANK).validation == []
