"""A dataset directory: `dataset.json`, `samples.parquet`, for robots `episodes.parquet`, and `shards/`.

The tables hold everything except images and masks, so filtering, mixing, statistics and chunking never open a tar.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from pokevla.data.statistics import Statistics
from pokevla.embodiment.description import Embodiment
from pokevla.errors import DataError
from pokevla.files.ownership import literal, refuse_foreign, refuse_overlap
from pokevla.files.writing import refuse_second_writer
from pokevla.recipe.checking.datasets import (
    CONVERT_AGAIN,
    EPISODES_NAME,
    INFO_NAME,
    SAMPLES_NAME,
    embodiment_in,
    read_info,
    read_table,
    tables_in,
    usable,
)
from pokevla.shards.index import index_path

SHARDS_NAME = "shards"
CHECKS_NAME = "checks.json"
"""What the conversion of recordings noticed, by episode. Only for people."""


@dataclass(frozen=True)
class Dataset:
    """An opened dataset directory. The rows of `samples` are in the order of the shards."""

    root: Path
    kind: Literal["vlm", "robot"]
    fingerprint: str
    info: dict[str, Any]
    samples: pa.Table
    episodes: pa.Table | None
    statistics: Statistics | None
    embodiment: Embodiment | None
    """The robot; None for a dataset of questions."""

    @property
    def shard_names(self) -> list[str]:
        """File names of the shards. The column `shard` of the samples is an index into this list."""
        return list(self.info["shards"])

    @property
    def fields(self) -> list[str]:
        """Extensions of the members that every sample has in its shard."""
        return list(self.info["fields"])

    @property
    def num_views(self) -> int:
        """Number of images per sample."""
        return self.embodiment.num_views if self.embodiment is not None else 1

    @property
    def has_masks(self) -> bool:
        """Whether robot samples have a mask for each view."""
        return self.embodiment is not None and self.embodiment.mask_members <= set(self.fields)


def open_dataset(root: Path) -> Dataset:
    """Open a dataset directory. Reads the tables, not the shards.

    Raises DataError if `dataset.json` is missing or damaged or has another schema version or bad statistics, or if a
    table is damaged.
    """
    info = read_info(root)
    tables = tables_in(info, root)
    samples = read_table(root, SAMPLES_NAME, tables)
    if samples.num_rows != info["num_samples"]:
        raise DataError(
            f"{root / SAMPLES_NAME} has {samples.num_rows} rows, dataset.json says {info['num_samples']}.",
            CONVERT_AGAIN,
        )
    embodiment = embodiment_in(info, root)
    return Dataset(
        root=root,
        kind=info["kind"],
        fingerprint=info["fingerprint"],
        info=info,
        samples=samples,
        episodes=read_table(root, EPISODES_NAME, tables) if embodiment else None,
        statistics=_statistics(info["statistics"], embodiment, root) if embodiment and info.get("statistics") else None,
        embodiment=embodiment,
    )


def refuse_output(out: Path, sources: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse a dataset directory that cannot be written, before any work.

    Args:
        sources: files and folders that the dataset is made of; none may overlap `out`.
        overwrite: whether a dataset of ours may be replaced. Anything else never is.

    Raises:
        UsageError: `out` overlaps a source.
        DataError: `out` exists, and `overwrite` is not set or it holds more than a dataset. Or another process writes
            it.
    """
    refuse_overlap(out, sources)
    refuse_second_writer(out)
    if not out.exists():
        return
    if not overwrite:
        raise DataError(f"{out} already exists.", "Remove it, choose another directory, or pass --overwrite.")
    refuse_replacing_dataset(out)


def refuse_replacing_dataset(out: Path) -> None:
    """Refuse to replace what is not a dataset of ours, or holds anything else.

    Raises:
        DataError: names what stands in the way.
    """
    try:
        shards = read_info(out)["shards"]
    except DataError as error:
        raise DataError(
            f"{out} is not replaced: it cannot be recognised as a dataset ({error.message})",
            "Remove it yourself, or choose another directory.",
        ) from error
    files = [path for name in shards for path in (Path(SHARDS_NAME, name), index_path(Path(SHARDS_NAME, name)))]
    names = [INFO_NAME, SAMPLES_NAME, EPISODES_NAME, CHECKS_NAME, *(literal(path.as_posix()) for path in files)]
    refuse_foreign(out, "dataset", names)


def _statistics(values: dict[str, Any], embodiment: Embodiment, root: Path) -> Statistics:
    try:
        return Statistics.from_dict(values, embodiment)
    except DataError as error:
        raise DataError(f"{root / INFO_NAME}: {error.message}", error.remedy) from error


def usable_rows(dataset: Dataset, split: str, chunk_length: int = 1) -> np.ndarray:
    """Rows (n,) int64 that may be sampled (`pokevla.recipe.checking.datasets.usable`).

    Raises DataError if no row is usable.
    """
    rows = np.flatnonzero(usable(dataset.samples, dataset.episodes, split, chunk_length))
    if rows.size == 0:
        raise DataError(
            f"{dataset.root} has no sample of split `{split}` with {chunk_length} actions after it.",
            "Choose another split (data.train_split) or convert more episodes.",
        )
    return rows


def shard_sizes(dataset: Dataset, rows: np.ndarray) -> list[int]:
    """Number of `rows` (ascending) in each shard, in the order of the shards. Shards without any are omitted."""
    shards = dataset.samples["shard"].to_numpy()[rows]
    return np.unique(shards, return_counts=True)[1].tolist()
