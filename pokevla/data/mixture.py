"""The datasets of a recipe, opened once and passed around as one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pokevla.data.dataset import Dataset, open_dataset, shard_sizes, usable_rows
from pokevla.data.loading.watch import answer_within
from pokevla.data.order import Order
from pokevla.data.statistics import Statistics, compute_statistics
from pokevla.data.tables.row_set import RowSet
from pokevla.embodiment.description import Embodiment
from pokevla.embodiment.mixing import common_embodiment
from pokevla.errors import DataError
from pokevla.files.remote.urls import is_url
from pokevla.recipe.checking.datasets import INFO_NAME, read_info
from pokevla.recipe.checking.recorded import RECORDED, Recorded, read_recorded, united
from pokevla.recipe.schema import TrainRecipe
from pokevla.recipe.sections import DataConfig
from pokevla.shards.remote.storage import Storage


@dataclass(frozen=True)
class Mixture:
    """Opened datasets of one kind, with the data settings of a recipe."""

    config: DataConfig
    datasets: tuple[Dataset, ...]  # in the order of the recipe
    train_rows: tuple[RowSet, ...]  # training rows of each dataset
    statistics: Statistics | None  # normalisation statistics of robot data; None for questions
    embodiment: Embodiment | None  # the robot; None for questions

    @property
    def storage(self) -> Storage:
        """How the shards of the datasets and of their caches are read."""
        return self.datasets[0].storage

    @property
    def sizes(self) -> list[int]:
        """Number of training samples of each dataset."""
        return [len(rows) for rows in self.train_rows]

    @property
    def fingerprints(self) -> dict[str, str]:
        """Path -> fingerprint of each dataset."""
        return {str(dataset.root): dataset.fingerprint for dataset in self.datasets}

    @property
    def recorded(self) -> Recorded:
        """Sizes and rendering of the images, and wordings of the instructions, of all datasets together. Raises
        DataError if an entry is damaged."""
        return united(read_recorded(each.info.get(RECORDED), each.root / INFO_NAME) for each in self.datasets)

    def order(self, seed: int) -> Order:
        """The order of the training rows for a given seed."""
        return Order(
            seed,
            [shard_sizes(dataset, rows) for dataset, rows in zip(self.datasets, self.train_rows, strict=True)],
            [source.weight for source in self.config.datasets],
            self.config.shuffle_window,
            [dataset.fingerprint for dataset in self.datasets],
        )

    def rows_at(self, datasets: np.ndarray, places: np.ndarray) -> np.ndarray:
        """(n,) int64 rows of the training samples `places` (n,) of `datasets` (n,), as `Order` gives them."""
        return _rows_of(self.train_rows, datasets, places)

    def samples_of(self, split: str) -> SplitSamples:
        """Every sample of a split, in the order of the recipe. There may be none."""
        return SplitSamples(
            [dataset.rows.usable(split, chunk_length(self.config, dataset.kind)) for dataset in self.datasets]
        )


class SplitSamples:
    """The samples of a split, one dataset after the other."""

    def __init__(self, rows: Sequence[RowSet]) -> None:
        self._rows = rows
        self._starts = np.concatenate(([0], np.cumsum([len(each) for each in rows])))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def pairs(self, places: np.ndarray) -> np.ndarray:
        """(n, 2) int64: dataset and row of the samples at `places` (n,), which are 0 to the number of samples."""
        datasets = np.searchsorted(self._starts, places, side="right") - 1
        rows = _rows_of(self._rows, datasets, places - self._starts[datasets])
        return np.stack([datasets.astype(np.int64), rows], axis=1)


def _rows_of(sets: Sequence[RowSet], datasets: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(n,) rows at `places` (n,) of the sets of `datasets` (n,)."""
    rows = np.empty(len(places), dtype=np.int64)
    for dataset in np.unique(datasets):
        inside = datasets == dataset
        rows[inside] = sets[dataset][places[inside]]
    return rows


def open_mixture(config: DataConfig, kind: Literal["vlm", "robot"]) -> Mixture:
    """Open every dataset of a recipe.

    Raises:
        DataError: a dataset is missing or damaged, is not of the kind the recipe needs, or has no training samples; or
            its file system does not answer within `data.storage.timeout_s`.
        RecipeError: the datasets are of robots that cannot be mixed. The message says what differs.
    """
    storage = Storage(config.storage.settings())
    datasets = tuple(_open(source.path, storage) for source in config.datasets)
    for dataset in datasets:
        if dataset.kind != kind:
            raise DataError(
                f"{dataset.root} is a {dataset.kind} dataset, this recipe needs {kind} datasets.",
                "Change data.datasets.",
            )
    embodiment = mixture_embodiment(datasets) if kind == "robot" else None
    rows = tuple(usable_rows(dataset, config.train_split, chunk_length(config, kind)) for dataset in datasets)
    return Mixture(config, datasets, rows, mixture_statistics(datasets) if kind == "robot" else None, embodiment)


def _open(root: Path, storage: Storage) -> Dataset:
    """A dataset of the mixture. Requests to object stores have time-outs of their own."""

    def call() -> Dataset:
        return open_dataset(root, mapped=True, storage=storage)

    return call() if is_url(root) else answer_within(storage.settings.timeout_s, root, call)


def chunk_length(config: DataConfig, kind: Literal["vlm", "robot"]) -> int:
    """Number of actions that must follow a frame for it to be a sample of this kind."""
    return config.chunk_length if kind == "robot" else 1


def mixture_fingerprints(recipe: TrainRecipe) -> dict[str, str]:
    """Name (`dataset_names`) -> fingerprint of each dataset, without opening a table. Raises DataError if a dataset is
    missing."""
    names = dataset_names(recipe)
    return {names[str(path)]: read_info(path)["fingerprint"] for path in recipe.dataset_paths}


def dataset_names(recipe: TrainRecipe) -> dict[str, str]:
    """Path -> name of each dataset in manifest and checkpoints: its path as the run's recipe spelled it at the start,
    so that a dataset may move."""
    spelled = recipe.paths_as_written
    return {
        str(path): spelled.get(f"data.datasets.{number}.path", str(path))
        for number, path in enumerate(recipe.dataset_paths)
    }


def mixture_embodiment(datasets: Sequence[Dataset]) -> Embodiment:
    """The embodiment of a mixture of robot datasets.

    Raises:
        DataError: a dataset holds questions.
        RecipeError: the robots cannot be mixed. The message says what differs.
    """
    described = []
    for dataset in datasets:
        if dataset.embodiment is None:
            raise DataError(f"{dataset.root} is a {dataset.kind} dataset: it has no robot.", "Use robot datasets.")
        described.append((str(dataset.root), dataset.embodiment))
    return common_embodiment(described)


def mixture_statistics(datasets: Sequence[Dataset], split: str = "train") -> Statistics:
    """Normalisation statistics of a mixture of robot datasets. A single dataset's own statistics are used as stored;
    otherwise they are computed over all episodes."""
    if len(datasets) == 1 and datasets[0].statistics is not None:
        return datasets[0].statistics
    actions: list[np.ndarray] = []
    proprio: list[np.ndarray] = []
    for dataset in datasets:
        if dataset.episodes is None:
            raise DataError(f"{dataset.root} has no episodes.", "Use robot datasets.")
        for row, name in enumerate(dataset.episodes["split"].to_pylist()):
            if split in ("all", name):
                actions.append(dataset.sequences.at("actions", row))
                proprio.append(dataset.sequences.at("proprio", row))
    return compute_statistics(actions, proprio, mixture_embodiment(datasets))
