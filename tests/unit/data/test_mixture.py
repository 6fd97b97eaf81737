"""Datasets of a recipe, opened as one object."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pokevla.data import mixture as mixture_module
from pokevla.data.dataset import open_dataset
from pokevla.data.mixture import mixture_statistics, open_mixture
from pokevla.errors import DataError
from pokevla.recipe.sections import DataConfig


def config(*roots: Path, **settings: Any) -> DataConfig:
    return DataConfig.model_validate({"datasets": [{"path": str(root)} for root in roots], **settings})


def test_statistics_of_a_mixture_cover_all_its_training_episodes(robot_dataset: Callable[..., Path]) -> None:
    first = open_dataset(robot_dataset("a", seed=0))
    second = open_dataset(robot_dataset("b", seed=1))
    assert mixture_statistics([first]) is first.statistics
    both = mixture_statistics([first, second])
    assert first.statistics is not None
    assert second.statistics is not None
    assert both.num_frames == first.statistics.num_frames + second.statistics.num_frames
    assert np.array_equal(both.action.max, np.maximum(first.statistics.action.max, second.statistics.action.max))


def test_rows_and_fingerprints_are_those_of_each_dataset_in_the_order_of_the_recipe(
    robot_dataset: Callable[..., Path],
) -> None:
    first, second = robot_dataset("a", demos=2), robot_dataset("b", demos=4, seed=1)
    mixture = open_mixture(config(second, first), "robot")
    assert list(mixture.fingerprints) == [str(second), str(first)]
    assert mixture.sizes == [len(rows) for rows in mixture.train_rows]
    assert mixture.sizes[0] > mixture.sizes[1] > 0
    assert mixture.order(7).sizes == mixture.sizes


def test_samples_of_a_split_may_be_none(robot_dataset: Callable[..., Path]) -> None:
    mixture = open_mixture(config(robot_dataset()), "robot")
    held_out = mixture.samples_of("val")
    pairs = held_out.pairs(np.arange(len(held_out)))
    assert pairs.shape == (len(held_out), 2)
    assert set(pairs[:, 0]) == {0}
    assert not set(pairs[:, 1]) & set(np.asarray(mixture.train_rows[0]))
    assert len(mixture.samples_of("no such split")) == 0


def test_a_dataset_of_another_kind_is_refused(robot_dataset: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="is a robot dataset, this recipe needs vlm datasets"):
        open_mixture(config(robot_dataset()), "vlm")


def test_a_dataset_whose_file_system_hangs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    # A FIFO does not do here: its size is not what dataset.json says, so that it is refused before it is opened.
    monkeypatch.setattr(mixture_module, "open_dataset", lambda *_args, **_options: answers.wait())
    with pytest.raises(DataError, match=rf"Opening {tmp_path} has taken .* has not ended"):
        open_mixture(config(tmp_path, storage={"timeout_s": 0.2}), "robot")
    answers.set()
