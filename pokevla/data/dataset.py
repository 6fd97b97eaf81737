"""A dataset directory: `dataset.json`, `samples.parquet`, for robots `episodes.parquet`, and `shards/`.

Everything but the pictures is in the two tables, so that filtering, mixing, statistics and chunking never open a tar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from pokevla.data.statistics import Statistics, compute_statistics
from pokevla.errors import DataError
from pokevla.recipe.checking.datasets import EPISODES_NAME, SAMPLES_NAME, read_info, read_table, usable
from pokevla.recipe.sections import DataConfig

SHARDS_NAME = "shards"


@dataclass(frozen=True)
class Dataset:
    """An opened dataset directory. Rows of `samples` are in the order of the shards."""

    root: Path
    kind: Literal["vlm", "robot"]
    fingerprint: str
    info: dict[str, Any]
    samples: pa.Table
    episodes: pa.Table | None
    statistics: Statistics | None

    @property
    def shard_names(self) -> list[str]:
        """File names of the shards; column `shard` of the samples counts in this list."""
        return list(self.info["shards"])

    @property
    def fields(self) -> list[str]:
        """Members every sample has in its shard, by extension."""
        return list(self.info["fields"])

    @property
    def has_masks(self) -> bool:
        """Whether robot samples carry a mask of each view."""
        return "base.mask.png" in self.fields and "wrist.mask.png" in self.fields


def open_dataset(root: Path) -> Dataset:
    """Open a dataset directory (tables are read, shards are not).

    Raises DataError when `dataset.json` is missing or of another schema version, or a table cannot be read.
    """
    info = read_info(root)
    samples = read_table(root / SAMPLES_NAME)
    if samples.num_rows != info["num_samples"]:
        raise DataError(
            f"{root / SAMPLES_NAME} has {samples.num_rows} rows, dataset.json says {info['num_samples']}.",
            "Convert the dataset again.",
        )
    robot = info["kind"] == "robot"
    return Dataset(
        root=root,
        kind=info["kind"],
        fingerprint=info["fingerprint"],
        info=info,
        samples=samples,
        episodes=read_table(root / EPISODES_NAME) if robot else None,
        statistics=Statistics.from_dict(info["statistics"]) if robot and info["statistics"] else None,
    )


def usable_rows(dataset: Dataset, split: str, chunk_length: int = 1) -> np.ndarray:
    """Rows (n,) int64 that may be sampled (`pokevla.recipe.checking.datasets.usable`).

    Raises DataError when nothing is left.
    """
    rows = np.flatnonzero(usable(dataset.samples, dataset.episodes, split, chunk_length))
    if rows.size == 0:
        raise DataError(
            f"{dataset.root} has no sample of split `{split}` with {chunk_length} actions after it.",
            "Choose another split (data.train_split) or convert more episodes.",
        )
    return rows


def shard_sizes(dataset: Dataset, rows: np.ndarray) -> list[int]:
    """How many of `rows` (ascending) lie in each shard that has any, in the order of the shards."""
    shards = dataset.samples["shard"].to_numpy()[rows]
    return np.unique(shards, return_counts=True)[1].tolist()


def open_mixture(config: DataConfig, kind: Literal["vlm", "robot"]) -> list[Dataset]:
    """Open every dataset of a recipe. DataError when one is of another kind than the recipe needs."""
    datasets = [open_dataset(source.path) for source in config.datasets]
    for dataset in datasets:
        if dataset.kind != kind:
            raise DataError(
                f"{dataset.root} is a {dataset.kind} dataset, this recipe needs {kind} datasets.",
                "Change data.datasets.",
            )
    return datasets


def mixture_fingerprints(config: DataConfig) -> dict[str, str]:
    """Path -> fingerprint of every dataset of a recipe. DataError when one is missing."""
    return {str(source.path): read_info(source.path)["fingerprint"] for source in config.datasets}


def mixture_statistics(datasets: Sequence[Dataset], split: str = "train") -> Statistics:
    """Normalisation for a mixture of robot datasets: the only one's own, or computed over all their episodes."""
    if len(datasets) == 1 and datasets[0].statistics is not None:
        return datasets[0].statistics
    actions: list[np.ndarray] = []
    proprio: list[np.ndarray] = []
    for dataset in datasets:
        if dataset.episodes is None:
            raise DataError(f"{dataset.root} has no episodes.", "Use robot datasets.")
        for episode in dataset.episodes.select(["split", "actions", "proprio"]).to_pylist():
            if split in ("all", episode["split"]):
                actions.append(np.asarray(episode["actions"], dtype=np.float64))
                proprio.append(np.asarray(episode["proprio"], dtype=np.float64))
    return compute_statistics(actions, proprio)
