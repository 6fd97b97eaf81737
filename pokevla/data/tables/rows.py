"""The sample table of a dataset as training reads it: by row, from mapped or loaded batches.

Columns: `key`, and those of `question`, `answer`, `further_turns`, `instruction`, `episode`, `frame`, `width`,
`num_images` that the table has; `split` as a number into the list of splits; `left`, the number of frames from this one
to the end of its episode. In which shard a row lies follows from the first row of each shard.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pokevla.data.tables.row_set import RowSet
from pokevla.data.tables.twin import Batches
from pokevla.errors import DataError
from pokevla.recipe.checking.datasets import ALL_SPLITS, CONVERT_AGAIN

BATCH_ROWS, MOST_BATCHES = 1 << 13, 1 << 11
"""Rows of a batch of a table, and the number of batches from which they are larger (`batch_rows`)."""
TEXTS, NUMBERS = ("key", "question", "answer", "instruction"), ("episode", "frame", "width", "num_images")
TURNS = "further_turns"
"""Lists of (question, answer) that follow in the same conversation."""
SPLITS, SHARD_STARTS = "splits", "shard_starts"
READ_COLUMNS = (*TEXTS, *NUMBERS, TURNS, "split", "shard")
"""Columns of `samples.parquet` that `compact` needs, as far as they are there."""


def batch_rows(num_rows: int) -> int:
    """Rows of each batch of a new table of `num_rows`. Tables name theirs, so those of another size are read too.

    Few, because writing a table holds about four times the bytes of a batch. But opening takes about 30 us for each
    batch, so tables of more than 2^24 rows have larger ones: 65,536 rows of 10^8, a few tens of MiB.
    """
    size = BATCH_ROWS
    while size * MOST_BATCHES < num_rows:
        size *= 2
    return size


class SampleRows:
    """Access to the samples of a dataset by row. Thread-safe."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._names = frozenset(batches.names)
        self._splits: list[str] = batches.header.values[SPLITS]
        self.shard_starts: np.ndarray = batches.header.arrays[SHARD_STARTS]
        """(S+1,) int64: first row of each shard of `dataset.json`, and the number of rows."""
        self._starts = self.shard_starts.data  # gives Python's integers, five times faster than numpy

    def __len__(self) -> int:
        return self._batches.header.num_rows

    def has(self, column: str) -> bool:
        """Whether the table has this column."""
        return column in self._names

    def text(self, column: str, row: int) -> str:
        """One of the texts of a sample."""
        number, place = divmod(row, self._batches.header.batch_rows)
        return cast(str, self._batches.column(number, column)[place].as_py())

    def text_lengths(self, column: str, rows: np.ndarray) -> np.ndarray:
        """(n,) characters of one of the texts of samples; rows (n,) int64."""
        lengths = np.empty(len(rows), dtype=np.int64)
        numbers, inside = np.divmod(rows, self._batches.header.batch_rows)
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number)
            texts = self._batches.column(number, column).take(pa.array(inside[places]))
            lengths[places] = pc.call_function("utf8_length", [texts]).to_numpy()
        return lengths

    def turns(self, row: int) -> list[tuple[str, str]]:
        """Further questions and answers of a sample. Raises DataError if one of them is not a pair of texts."""
        if not self.has(TURNS):
            return []
        number, place = divmod(row, self._batches.header.batch_rows)
        turns = self._batches.column(number, TURNS)[place].as_py() or []
        if any(turn is None or len(turn) != 2 or None in turn for turn in turns):
            raise DataError(
                f"Row {row} of samples.parquet has {TURNS} that are not pairs of question and answer.", CONVERT_AGAIN
            )
        return [(question, answer) for question, answer in turns]

    def turn_lengths(self, rows: np.ndarray) -> np.ndarray:
        """(n,) characters of the further questions and answers of samples; rows (n,) int64."""
        lengths = np.zeros(len(rows), dtype=np.int64)
        if not self.has(TURNS):
            return lengths
        numbers, inside = np.divmod(rows, self._batches.header.batch_rows)
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number)
            turns = self._batches.column(number, TURNS).take(pa.array(inside[places]))
            texts = turns.flatten()  # a list of texts per turn
            owner = places[pc.call_function("list_parent_indices", [turns]).to_numpy()]
            owner = owner[pc.call_function("list_parent_indices", [texts]).to_numpy()]
            np.add.at(lengths, owner, pc.call_function("utf8_length", [texts.flatten()]).to_numpy())
        return lengths

    def texts(self, column: str, start: int, stop: int) -> pa.Array:
        """The texts of rows `start` to `stop`, as Arrow strings."""
        size = self._batches.header.batch_rows
        parts = [
            self._batches.column(number, column)[max(0, start - number * size) : stop - number * size]
            for number in range(start // size, -(-stop // size))
        ]
        return pa.concat_arrays(parts) if len(parts) != 1 else parts[0]

    def number(self, column: str, row: int) -> int:
        """One of the numbers of a sample."""
        number, place = divmod(row, self._batches.header.batch_rows)
        return int(self._batches.column(number, column)[place].as_py())

    def numbers(self, column: str, start: int, stop: int) -> np.ndarray:
        """(n,) int64 numbers of rows `start` to `stop`."""
        size = self._batches.header.batch_rows
        parts = [
            self._batches.column(number, column)[max(0, start - number * size) : stop - number * size].to_numpy()
            for number in range(start // size, -(-stop // size))
        ]
        return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, dtype=np.int64)

    def shard_of(self, row: int) -> tuple[int, int]:
        """(number of the shard that holds this row, number of the sample in it)."""
        shard = bisect_right(self._starts, row) - 1
        return shard, row - self._starts[shard]

    def usable(self, split: str, chunk_length: int) -> RowSet:
        """The rows of `split` (`all`: of any) that are followed by a full chunk of actions in their episode.

        OFT drops the last K-1 frames of an episode as chunk starts instead of padding with repeated actions
        (prismatic/vla/datasets). Reads 2 to 6 bytes a row.

        Raises:
            DataError: a row is of an episode or frame that the table of episodes does not have.
        """
        code = self._splits.index(split) if split in self._splits else -1
        return RowSet.of(self._masks(code, split == ALL_SPLITS, chunk_length), len(self))

    def _masks(self, code: int, is_any: bool, chunk_length: int) -> Iterator[np.ndarray]:
        header = self._batches.header
        for number in range(len(self._batches)):
            rows = min(header.batch_rows, header.num_rows - number * header.batch_rows)
            keep = np.ones(rows, dtype=bool)
            if not is_any:
                keep &= self._batches.column(number, "split").to_numpy() == code
            if self.has("left"):
                left = self._batches.column(number, "left").to_numpy()
                if left.min() < 1:
                    raise DataError(
                        f"Row {number * header.batch_rows + int(left.argmin())} of samples.parquet is of a frame that "
                        "episodes.parquet does not have.",
                        CONVERT_AGAIN,
                    )
                keep &= left >= chunk_length
            yield keep


def compact(samples: pa.Table, splits: Sequence[str], lengths: EpisodeLengths | None) -> pa.Table:
    """The columns of `SampleRows` from those of `samples.parquet`.

    Args:
        samples: some rows of the table, with `READ_COLUMNS` as far as they are there.
        splits: all splits of the whole table.
        lengths: of the dataset's episodes; None for questions.
    """
    names = set(samples.column_names)
    columns = {name: samples[name].cast(pa.large_string()) for name in TEXTS if name in names}
    columns |= {name: samples[name].cast(pa.int32()) for name in NUMBERS if name in names}
    if TURNS in names:
        columns[TURNS] = samples[TURNS].cast(pa.large_list(pa.large_list(pa.large_string())))
    if "split" in names:
        codes: pa.ChunkedArray = pc.call_function("index_in", [samples["split"]], pc.SetLookupOptions(pa.array(splits)))
        columns["split"] = codes.fill_null(-1).cast(pa.int16())
    if lengths is not None and {"episode", "frame"} <= names:
        left = lengths.of(samples["episode"].to_numpy()) - samples["frame"].to_numpy()
        columns["left"] = pa.array(left.astype(np.int32))
    return pa.table(columns)


class EpisodeLengths:
    """Number of frames of each episode."""

    def __init__(self, episodes: pa.Table) -> None:
        """`episodes` has the columns `episode` and `length`."""
        numbers = episodes["episode"].to_numpy()
        self._order = np.argsort(numbers, kind="stable")
        self._numbers, self._lengths = numbers[self._order], episodes["length"].to_numpy()[self._order]

    def of(self, episodes: np.ndarray) -> np.ndarray:
        """(n,) lengths of the episodes (n,); 0 for one that is not in the table."""
        if not len(self._numbers):
            return np.zeros(len(episodes), dtype=np.int64)
        places = np.searchsorted(self._numbers, episodes, side="right") - 1
        found = (places >= 0) & (self._numbers[places] == episodes)
        return np.where(found, self._lengths[places], 0)


def shard_starts(shards: np.ndarray, num_shards: int) -> np.ndarray:
    """(S+1,) int64 first row of each shard, and the number of rows, from the column `shard` (n,).

    Raises:
        DataError: the rows are not in the order of the shards, or name a shard that is not there.
    """
    if len(shards) and (np.any(np.diff(shards) < 0) or shards[0] < 0 or shards[-1] >= num_shards):
        raise DataError("The rows of samples.parquet are not in the order of the shards.", CONVERT_AGAIN)
    return np.searchsorted(shards, np.arange(num_shards + 1)).astype(np.int64)
