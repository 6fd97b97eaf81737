"""Making the twins of a dataset's tables, and opening them, or the tables where there are none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pokevla.data.tables import rows as sample_rows
from pokevla.data.tables import sequences
from pokevla.data.tables.rows import SHARD_STARTS, SPLITS, TURNS, EpisodeLengths, SampleRows, compact, shard_starts
from pokevla.data.tables.sequences import EpisodeSequences, compact_episodes
from pokevla.data.tables.twin import Header, MappedBatches, TableBatches, write_twin
from pokevla.errors import DataError, command_line
from pokevla.files.checksums import StoredFile
from pokevla.recipe.checking.datasets import CONVERT_AGAIN, EPISODES_NAME, SAMPLES_NAME

TWINS = {SAMPLES_NAME: "samples.arrow", EPISODES_NAME: "episodes.arrow"}
"""Name of the twin of each table."""

logger = logging.getLogger(__name__)


def write_twins(root: Path, tables: Mapping[str, StoredFile], num_shards: int) -> None:
    """Write the twins of a dataset's tables beside them. Reads one group of rows at a time.

    Args:
        root: directory with the tables.
        tables: their checksums, as in `dataset.json`; the caller has compared them.
        num_shards: number of shards of the dataset.

    Raises:
        DataError: the tables contradict each other or cannot be read, or the disk is full.
    """
    made_from = {name: table.xxh64 for name, table in tables.items()}
    try:
        episodes = pq.ParquetFile(root / EPISODES_NAME) if EPISODES_NAME in tables else None
        lengths = None if episodes is None else _lengths(episodes)
        samples = pq.ParquetFile(root / SAMPLES_NAME)
        shards, splits = [], set()
        for part in _groups(samples, ("shard", "split")):
            shards.append(part["shard"].to_numpy())
            splits |= set(part["split"].unique().to_pylist()) if "split" in part.column_names else set()
        header = _header(made_from, shards, sorted(filter(None, splits)), num_shards)
        _write(
            root / TWINS[SAMPLES_NAME], header, _groups(samples, sample_rows.READ_COLUMNS),
            lambda part: compact(part, header.values[SPLITS], lengths),
        )  # fmt: skip
        if episodes is not None:
            rows = Header(made_from, episodes.metadata.num_rows, sequences.EPISODE_ROWS, {}, {})
            _write(root / TWINS[EPISODES_NAME], rows, _groups(episodes, sequences.READ_COLUMNS), compact_episodes)
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise DataError(f"The tables of {root} cannot be read ({error}).", CONVERT_AGAIN) from error


def find_twins(root: Path, tables: Mapping[str, StoredFile]) -> dict[str, MappedBatches]:
    """The twins of all tables of a dataset, by the name of the table; empty if one is missing, was made from another
    table or without a column that training reads, or the dataset does not know its tables' checksums.

    Raises:
        DataError: a twin is damaged.
    """
    paths = {name: root / TWINS[name] for name in tables if name in TWINS}
    if SAMPLES_NAME not in paths or not all(path.is_file() for path in paths.values()):
        return {}
    twins = {name: MappedBatches(path) for name, path in paths.items()}
    expected = {name: table.xxh64 for name, table in tables.items()}
    older = [paths[name] for name, twin in twins.items() if twin.header.made_from != expected]
    if older:
        command = command_line("data", "index", root)
        logger.warning("%s was made from another table and is not used; make it again with: %s", older[0], command)
        return {}
    if _lacks_turns(root, twins[SAMPLES_NAME]):
        path, command = paths[SAMPLES_NAME], command_line("data", "index", root)
        logger.warning("%s lacks the column %s and is not used; make it again with: %s", path, TURNS, command)
        return {}
    return twins


def _lacks_turns(root: Path, twin: MappedBatches) -> bool:
    """Whether a twin of questions was made when training did not read further turns, and the table has some.

    Behind a URL, where only the twin is copied, this is not known.
    """
    table = root / SAMPLES_NAME
    if "question" not in twin.names or TURNS in twin.names or not table.is_file():
        return False
    try:
        return TURNS in pq.read_schema(table).names
    except (pa.ArrowException, OSError):  # the twin is good, and verification finds the damage
        return False


def rows_in_memory(samples: pa.Table, episodes: pa.Table | None, num_shards: int) -> SampleRows:
    """`SampleRows` of tables in memory, for a dataset without twins. Raises DataError if they contradict each other."""
    has_splits = "split" in samples.column_names
    splits = sorted(filter(None, samples["split"].unique().to_pylist())) if has_splits else []
    wanted = [name for name in sample_rows.READ_COLUMNS if name in samples.column_names]
    lengths = None if episodes is None else EpisodeLengths(episodes)
    header = _header({}, [samples["shard"].to_numpy()], splits, num_shards)
    return SampleRows(TableBatches(compact(samples.select(wanted), splits, lengths), header))


def sequences_in_memory(episodes: pa.Table) -> EpisodeSequences:
    """`EpisodeSequences` of a table in memory."""
    header = Header({}, episodes.num_rows, sequences.EPISODE_ROWS, {}, {})
    return EpisodeSequences(TableBatches(compact_episodes(episodes), header))


def _header(made_from: dict[str, str], shards: list[np.ndarray], splits: list[str], num_shards: int) -> Header:
    column = np.concatenate(shards) if shards else np.empty(0, dtype=np.int32)
    starts = shard_starts(column, num_shards)
    size = sample_rows.batch_rows(len(column))
    return Header(made_from, len(column), size, {SPLITS: splits}, {SHARD_STARTS: starts})


def _lengths(episodes: pq.ParquetFile) -> EpisodeLengths:
    return EpisodeLengths(episodes.read(["episode", "length"]))


def _groups(file: pq.ParquetFile, columns: Iterable[str]) -> Iterator[pa.Table]:
    """A table without rows and then the row groups of a file, with those of `columns` that it has."""
    names = [name for name in columns if name in file.schema_arrow.names]
    yield file.schema_arrow.empty_table().select(names)  # so that there is one
    for number in range(file.num_row_groups):
        yield file.read_row_group(number, columns=names, use_threads=False)


def _write(path: Path, header: Header, parts: Iterable[pa.Table], change: Callable[[pa.Table], pa.Table]) -> None:
    tables = (change(part) for part in parts)
    first = next(tables)  # without rows
    write_twin(path, header, first.schema, _rebatched(tables, header.batch_rows))


def _rebatched(tables: Iterable[pa.Table], batch_rows: int) -> Iterator[pa.RecordBatch]:
    """The rows of `tables` in batches of `batch_rows`. The last one has the rest."""
    pending: list[pa.Table] = []
    rows = 0
    for table in tables:
        pending.append(table)
        rows += table.num_rows
        while rows >= batch_rows:
            first, pending = _divided(pending, batch_rows)
            rows -= batch_rows
            yield first.pop()  # nothing here keeps it while it is written
    if rows:
        yield _as_batch(pa.concat_tables(pending))


def _divided(tables: list[pa.Table], batch_rows: int) -> tuple[list[pa.RecordBatch], list[pa.Table]]:
    """The first `batch_rows` rows as one batch, copied, and the rest."""
    joined = pa.concat_tables(tables)
    return [_as_batch(joined.slice(0, batch_rows))], [joined.slice(batch_rows)]


def _as_batch(table: pa.Table) -> pa.RecordBatch:
    return table.combine_chunks().to_batches()[0]
