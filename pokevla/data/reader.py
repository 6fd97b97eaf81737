"""Reading samples of a dataset by table row."""

from __future__ import annotations

from collections.abc import Sequence

from pokevla.data.dataset import SHARDS_NAME, Dataset
from pokevla.errors import DamagedDataError, DataError
from pokevla.recipe.checking.datasets import INFO_NAME
from pokevla.shards.shard_reader import Shards

REMEDY = "Restore the shard, or convert the dataset again."


def dataset_shards(dataset: Dataset) -> Shards:
    """The shards of a dataset, whose indices are checked against `dataset.json`."""
    checksums = {name: shard.get("index_xxh64") for name, shard in dataset.info["shards"].items()}
    storage = dataset.storage
    source = storage.source(dataset.root, INFO_NAME, SHARDS_NAME)
    return Shards(dataset.root / SHARDS_NAME, REMEDY, checksums, source=source, log=storage.log)


def member(members: dict[str, bytes], extension: str, key: str) -> bytes:
    """One member of a sample. Raises DataError if the sample lacks it."""
    if extension not in members:
        raise DamagedDataError(f"sample {key} has no member {extension}.", "Convert the dataset again.")
    return members[extension]


class ShardReader:
    """Random access to the samples of a dataset. Thread-safe."""

    def __init__(self, dataset: Dataset) -> None:
        """Files are opened at the first read."""
        self._folder = dataset.root / SHARDS_NAME
        self._shards = dataset_shards(dataset)
        self._names, self._rows = dataset.shard_names, dataset.rows

    def read(self, row: int) -> dict[str, bytes]:
        """Members of the sample at `row` of the table, by extension (`base.jpg`, `json`, ...).

        Raises DataError naming shard and key if the shard is missing, truncated or corrupted.
        """
        shard, number = self._rows.shard_of(row)
        name, key = self._names[shard], self._rows.text("key", row)
        index = self._shards.index(name)
        if number >= len(index) or index.key(number) != key:
            raise DataError(f"{self._folder / name}: entry {number} of its index is not {key}.", REMEDY)
        return self._shards.read_sample(name, index[number])

    def ahead(self, rows: Sequence[int]) -> None:
        """This thread reads the samples at `rows` next (`Shards.ahead`)."""
        if self._shards.gains_by_ahead:
            places = (self._rows.shard_of(row) for row in rows)
            self._shards.ahead([(self._names[shard], number) for shard, number in places])

    def close(self) -> None:
        """Close all files."""
        self._shards.close()
