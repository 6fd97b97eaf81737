"""The list of samples to leave out: one row of a parquet file for each, with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pokevla.data.curation.rules import describe
from pokevla.errors import DataError
from pokevla.files.ownership import refuse_foreign
from pokevla.files.texts import write_json
from pokevla.files.writing import atomic_folder

ROWS_NAME, REPORT_NAME = "left_out.parquet", "report.json"
SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("fingerprint", pa.string()),
        ("row", pa.int64()),
        ("key", pa.string()),
        ("code", pa.string()),
        ("because", pa.string()),
    ]
)
"""`fingerprint` and `row` say which sample; `code` is a reason code; `because` the sample that is kept, or contradicts
it, or the question of a benchmark."""


def owned_result(folder: Path) -> None:
    """Refuse to replace a folder that holds more than a result of ours. Raises DataError."""
    refuse_foreign(folder, "list of samples to leave out", [ROWS_NAME, REPORT_NAME])


@contextmanager
def new_result(out: Path, report: Callable[[], dict[str, Any]], *, overwrite: bool) -> Iterator[pq.ParquetWriter]:
    """Yield the writer of the list in a new folder `out`; `report()` is written beside it at the end.

    Raises:
        DataError: `out` exists and may not be replaced, or writing failed.
    """
    with atomic_folder(out, replaces=owned_result if overwrite else None) as folder:
        with pq.ParquetWriter(folder / ROWS_NAME, SCHEMA, write_page_checksum=True) as writer:
            yield writer
        write_json(folder / REPORT_NAME, report())


def read_left_out(path: Path, fingerprint: str) -> np.ndarray:
    """(n,) int64 ascending and distinct: rows of the dataset with this fingerprint that the list leaves out.

    Args:
        path: the list, or its folder.

    Raises:
        DataError: the list is missing or damaged.
    """
    return np.unique(_read(path, fingerprint, ["row"])["row"].to_numpy())


def read_codes(path: Path, fingerprint: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """((n,) int64 rows, (n,) object codes, keys) of a dataset in the order of the list; a row may come several times.

    Raises what `read_left_out` raises.
    """
    table = _read(path, fingerprint, ["row", "code", "key"])
    return table["row"].to_numpy(), table["code"].to_numpy(), table["key"].to_pylist()


def _read(path: Path, fingerprint: str, columns: list[str]) -> pa.Table:
    path = path / ROWS_NAME if path.is_dir() else path
    parts = [pa.schema([SCHEMA.field(name) for name in columns]).empty_table()]
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(columns=["fingerprint", *columns], use_threads=False):
                is_its = np.asarray(batch.column("fingerprint").to_numpy(zero_copy_only=False) == fingerprint)
                its = pa.Table.from_batches([batch]).filter(pa.array(is_its.astype(bool)))
                parts.append(its.select(columns).cast(parts[0].schema))
        return pa.concat_tables(parts)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({str(error).splitlines()[0]}).", "Make the list again.") from error


def sentences(counts: dict[str, int]) -> list[str]:
    """A line for each code that occurs: code, count, meaning."""
    return [f"{code}: {count}: {describe(code)}" for code, count in counts.items() if count]
