"""Chunks of parquet files: complete, whatever their row groups, and each part of the file read once."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pokevla.data.curation import row_files
from pokevla.data.curation.row_files import CHUNK_ROWS, RowReader, read_rows, survey_file


def write_numbers(path: Path, rows: int, group_rows: int) -> Path:
    pq.write_table(pa.table({"number": list(range(rows))}), path, row_group_size=group_rows)
    return path


@pytest.mark.parametrize("group_rows", [100, CHUNK_ROWS, 1000, 5000])
def test_every_row_is_read_once_in_any_order_of_chunks(group_rows: int, tmp_path: Path) -> None:
    path = write_numbers(tmp_path / "a.parquet", 2345, group_rows)
    survey = survey_file(path)
    shuffled = random.Random(1).sample(survey.chunks, len(survey.chunks))
    for chunks in (survey.chunks, shuffled):
        with RowReader() as reader:
            found = [pair for chunk in chunks for pair in reader.rows(path, chunk)]
        assert sorted(number for number, _ in found) == list(range(2345))
        assert all(value == {"number": number} for number, value in found)
    assert [number for chunk in shuffled for number, _ in read_rows(path, chunk)] == [number for number, _ in found]


def test_chunks_in_order_open_each_row_group_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_numbers(tmp_path / "a.parquet", 8 * CHUNK_ROWS, 4 * CHUNK_ROWS)
    opened = []

    class Counted(row_files._RowGroup):
        def __init__(self, path: Path, number: int) -> None:
            opened.append(number)
            super().__init__(path, number)

    monkeypatch.setattr(row_files, "_RowGroup", Counted)
    with RowReader() as reader:
        for chunk in survey_file(path).chunks[::2]:  # as one of two processes gets them
            assert len(list(reader.rows(path, chunk))) == CHUNK_ROWS
    assert opened == [0, 1]
