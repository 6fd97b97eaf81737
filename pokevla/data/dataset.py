"""A dataset directory: `dataset.json`, `samples.parquet`, for robots `episodes.parquet`, and `shards/`.

The tables hold everything except images and masks, so filtering, mixing, statistics and chunking never open a tar.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from pokevla.data.statistics import Statistics
from pokevla.data.tables.opening import TWINS, find_twins, rows_in_memory, sequences_in_memory, write_twins
from pokevla.data.tables.row_set import RowSet
from pokevla.data.tables.rows import SampleRows
from pokevla.data.tables.sequences import EpisodeSequences
from pokevla.data.tables.twin import MappedBatches
from pokevla.embodiment.description import Embodiment
from pokevla.errors import DataError
from pokevla.files.checksums import StoredFile, file_damage
from pokevla.files.ownership import literal, refuse_foreign, refuse_overlap
from pokevla.files.remote.mirror import Mirror
from pokevla.files.remote.urls import as_url, is_url
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
)
from pokevla.shards.index import index_path
from pokevla.shards.remote.storage import Storage

SHARDS_NAME = "shards"
CHECKS_NAME = "checks.json"
"""What the conversion of recordings noticed, by episode. Only for people."""


@dataclass(frozen=True)
class Dataset:
    """An opened dataset directory."""

    root: Path
    """The directory, or its URL."""
    kind: Literal["vlm", "robot"]
    fingerprint: str
    info: dict[str, Any]
    statistics: Statistics | None
    embodiment: Embodiment | None
    """The robot; None for a dataset of questions."""
    tables: Mapping[str, StoredFile]
    """Size and checksum of each table by name; empty for datasets from before they were stored."""
    twins: Mapping[str, MappedBatches]
    """The mapped tables by name; empty if they are not used."""
    storage: Storage = field(default_factory=Storage, repr=False, compare=False)
    """How its shards are read."""

    @property
    def folder(self) -> Path:
        """Directory with its description and tables on this machine: `root`, or copies of what lies behind a URL."""
        return self.storage.local_folder(self.root, INFO_NAME)

    @cached_property
    def samples(self) -> pa.Table:
        """All columns of all samples, in memory; the rows are in the order of the shards. Training reads `rows`.

        Raises DataError if the table is damaged.
        """
        samples = read_table(self._with(SAMPLES_NAME), SAMPLES_NAME, self.tables)
        if samples.num_rows != self.info["num_samples"]:
            raise DataError(
                f"{self.root / SAMPLES_NAME} has {samples.num_rows} rows, dataset.json says "
                f"{self.info['num_samples']}.",
                CONVERT_AGAIN,
            )
        return samples

    @cached_property
    def episodes(self) -> pa.Table | None:
        """All columns of all episodes, in memory; None for questions. Raises DataError if the table is damaged."""
        return read_table(self._with(EPISODES_NAME), EPISODES_NAME, self.tables) if self.embodiment else None

    def _with(self, table: str) -> Path:
        return self.storage.local_folder(self.root, INFO_NAME, table)

    @cached_property
    def rows(self) -> SampleRows:
        """What training reads of the samples, by row. Raises DataError if a table is damaged."""
        if self.twins:
            return SampleRows(self.twins[SAMPLES_NAME])
        return rows_in_memory(self.samples, self.episodes, len(self.info["shards"]))

    @cached_property
    def sequences(self) -> EpisodeSequences:
        """Actions and proprio by episode. Raises DataError if the table is damaged, or this is not a robot's."""
        if self.twins:
            return EpisodeSequences(self.twins[EPISODES_NAME])
        if self.episodes is None:
            raise DataError(f"{self.root} has no episodes.", "Use a robot dataset.")
        return sequences_in_memory(self.episodes)

    @cached_property
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


def open_dataset(root: Path, *, mapped: bool = False, storage: Storage | None = None) -> Dataset:
    """Open a dataset directory, or one behind a URL. Reads the tables, not the shards; those behind a URL are copied to
    this machine once. `storage` is how its shards are read later.

    With `mapped`, tables with a twin (docs/data.md, Mapped tables) are not read but mapped, and checked as they are
    used. Without twins this makes no difference.

    Raises DataError if `dataset.json` is missing or damaged or has another schema version or bad statistics, or if a
    table is damaged.
    """
    storage = storage or Storage()
    root = as_url(root) if is_url(root) else root
    folder = storage.local_folder(root, INFO_NAME, INFO_NAME)
    info = read_info(folder)
    tables = tables_in(info, root)
    embodiment = embodiment_in(info, root)
    if mapped and is_url(root):
        _copy_twins(storage.mirror(root, INFO_NAME), tables)
    dataset = Dataset(
        root=root,
        kind=info["kind"],
        fingerprint=info["fingerprint"],
        info=info,
        statistics=_statistics(info["statistics"], embodiment, root) if embodiment and info.get("statistics") else None,
        embodiment=embodiment,
        tables=tables,
        twins=find_twins(folder, tables) if mapped else {},
        storage=storage,
    )
    if not dataset.twins:
        _ = dataset.samples, dataset.episodes  # read now, so that damage is found now
    elif len(dataset.rows) != info["num_samples"]:
        raise DataError(
            f"{root / TWINS[SAMPLES_NAME]} has {len(dataset.rows)} rows, dataset.json says {info['num_samples']}.",
            CONVERT_AGAIN,
        )
    return dataset


def _copy_twins(mirror: Mirror, tables: Mapping[str, StoredFile]) -> None:
    """Copy the mapped tables of a dataset behind a URL, if it has them."""
    names = [TWINS[name] for name in tables if name in TWINS]
    if names and all(mirror.has(name) for name in names):
        for name in names:
            mirror.copy(name)


def index_dataset(root: Path) -> bool:
    """Write the twins of a dataset's tables, if they are not there or damaged. Returns whether they were written.

    Raises:
        DataError: a table is damaged, or the dataset is of before its tables had checksums; or the disk is full.
    """
    info = read_info(root)
    tables = tables_in(info, root)
    if not tables:
        raise DataError(f"{root / INFO_NAME} has no checksums of the tables.", CONVERT_AGAIN)
    with suppress(DataError):  # damaged: it is made again
        twins = find_twins(root, tables)
        for twin in twins.values():
            twin.check()
        if twins:
            return False
    for table in tables.values():
        damage = file_damage(root, table)
        if damage is not None:
            raise DataError(damage, CONVERT_AGAIN)
    write_twins(root, tables, len(info["shards"]))
    return True


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
    tables = [INFO_NAME, SAMPLES_NAME, EPISODES_NAME, CHECKS_NAME, *TWINS.values()]
    names = [*tables, *(literal(path.as_posix()) for path in files)]
    refuse_foreign(out, "dataset", names)


def _statistics(values: dict[str, Any], embodiment: Embodiment, root: Path) -> Statistics:
    try:
        return Statistics.from_dict(values, embodiment)
    except DataError as error:
        raise DataError(f"{root / INFO_NAME}: {error.message}", error.remedy) from error


def usable_rows(dataset: Dataset, split: str, chunk_length: int = 1) -> RowSet:
    """Rows that may be sampled (`SampleRows.usable`).

    Raises DataError if no row is usable.
    """
    rows = dataset.rows.usable(split, chunk_length)
    if len(rows) == 0:
        raise DataError(
            f"{dataset.root} has no sample of split `{split}` with {chunk_length} actions after it.",
            "Choose another split (data.train_split) or convert more episodes.",
        )
    return rows


def shard_sizes(dataset: Dataset, rows: RowSet) -> np.ndarray:
    """Number of `rows` in each shard, int64, in the order of the shards. Shards without any are omitted."""
    sizes = np.diff(rows.count_before(dataset.rows.shard_starts))
    return sizes[sizes > 0]
