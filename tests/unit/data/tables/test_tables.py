"""Mapped tables say what the parquet tables say, and damage is found before a value is used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from pokevla.data.dataset import Dataset, index_dataset, open_dataset
from pokevla.data.inspection import verify_dataset
from pokevla.data.sources.libero_vlm import SAMPLE_SCHEMA
from pokevla.data.tables import opening, rows
from pokevla.data.tables.twin import Header, TableBatches
from pokevla.data.writer import DatasetWriter
from pokevla.errors import DataError
from pokevla.files.checksums import measure_file
from tests.toys import forget_checksums, write_toy_dataset, write_toy_questions


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 16 rows, so that a toy dataset has several."""
    monkeypatch.setattr(rows, "BATCH_ROWS", 16)


@pytest.fixture(params=[write_toy_dataset, write_toy_questions])
def root(request: pytest.FixtureRequest, tmp_path: Path, small_batches: None) -> Path:
    return request.param(tmp_path / "data")


def values(dataset: Dataset) -> Iterator[Any]:
    """All that training reads of the tables."""
    table = dataset.rows
    yield table.shard_starts.tolist()
    for split in ("train", "val", "all", "no such split"):
        for chunk_length in (1, 8):
            yield np.asarray(table.usable(split, chunk_length)).tolist()
    for row in range(len(table)):
        yield [table.text(name, row) for name in rows.TEXTS if table.has(name)]
        yield [table.number(name, row) for name in rows.NUMBERS if table.has(name)]
        yield table.shard_of(row)
    if dataset.embodiment is not None:
        yield from (dataset.sequences.at(name, 1).tolist() for name in ("actions", "proprio"))


def test_mapped_tables_say_what_the_parquet_tables_say(root: Path) -> None:
    mapped, loaded = open_dataset(root, mapped=True), open_dataset(root)
    assert mapped.twins
    assert not loaded.twins
    assert list(values(mapped)) == list(values(loaded))
    assert mapped.rows.texts("key", 10, 40).to_pylist() == loaded.samples["key"].to_pylist()[10:40]
    assert mapped.samples.equals(loaded.samples)


def test_tables_with_batches_of_another_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_toy_dataset(tmp_path / "data")
    found = []
    for size in (16, 64, 1 << 18):
        monkeypatch.setattr(rows, "BATCH_ROWS", size)
        (root / "samples.arrow").unlink()
        assert index_dataset(root)
        monkeypatch.undo()
        dataset = open_dataset(root, mapped=True)
        assert dataset.twins["samples.parquet"].header.batch_rows == size
        found.append(list(values(dataset)))
    assert found[0] == found[1] == found[2]


def test_large_tables_have_larger_batches_so_that_they_open_fast() -> None:
    assert rows.batch_rows(1) == rows.batch_rows(10**7) == 8192
    assert rows.batch_rows((1 << 24) + 1) == 16384
    assert rows.batch_rows(10**8) == 65536


def test_writing_a_table_of_more_rows_needs_no_more_memory(tmp_path: Path) -> None:
    peaks, before = [], pa.default_memory_pool()
    for count in (20_000, 100_000):
        root = tmp_path / str(count)
        root.mkdir()
        texts = pa.array([f"what is in picture {number:07d}" for number in range(count)])
        table = pa.table({"key": texts, "question": texts, "answer": texts, "shard": np.zeros(count, dtype=np.int32)})
        parquet.write_table(table, root / "samples.parquet", row_group_size=1024)
        pool = pa.proxy_memory_pool(before)
        pa.set_memory_pool(pool)
        try:
            opening.write_twins(root, {"samples.parquet": measure_file(root, "samples.parquet")}, 1)
        finally:
            pa.set_memory_pool(before)
        peaks.append(pool.max_memory() or 0)
    assert peaks[0] > 1 << 20, "it is counted"
    assert peaks[1] < 1.2 * peaks[0]


def test_lengths_of_texts_are_their_characters() -> None:
    texts = ["", "Spüle", "机器人", *(n * "a" for n in range(30))]
    header = Header({}, len(texts), 16, {rows.SPLITS: []}, {rows.SHARD_STARTS: np.array([0, len(texts)])})
    table = rows.SampleRows(TableBatches(pa.table({"key": pa.array(texts, pa.large_string())}), header))
    order = np.random.default_rng(0).permutation(len(texts))
    assert table.text_lengths("key", order).tolist() == [len(texts[row]) for row in order]


def test_frames_of_an_episode_are_those_of_the_table(tmp_path: Path) -> None:
    dataset = open_dataset(write_toy_dataset(tmp_path / "data"), mapped=True)
    assert dataset.episodes is not None
    actions = np.asarray(dataset.episodes["actions"][3].as_py())
    assert np.array_equal(dataset.sequences.frames("actions", 3, 5, 9), actions[5:9])
    with pytest.raises(DataError, match="16 frames of actions in row 3, not 17"):
        dataset.sequences.frames("actions", 3, 9, 17)
    with pytest.raises(DataError, match="Episode 77 is not"):
        dataset.sequences.frames("actions", 77, 0, 1)


@pytest.mark.parametrize("name", ["samples.arrow", "episodes.arrow"])
def test_flipped_bits_of_a_mapped_table_are_found_or_change_nothing(tmp_path: Path, name: str) -> None:
    root = write_toy_dataset(tmp_path / "data", episodes=3)
    path, before = root / name, list(values(open_dataset(root, mapped=True)))
    good = path.read_bytes()
    for place in range(0, len(good), 37):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1 << place % 8]) + good[place + 1 :])
        with contextlib.suppress(DataError):  # no other error
            assert list(values(open_dataset(root, mapped=True))) == before, place


def test_mapped_tables_of_another_dataset_are_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = write_toy_questions(tmp_path / "a", 40), write_toy_questions(tmp_path / "b", 48)
    (first / "samples.arrow").write_bytes((second / "samples.arrow").read_bytes())
    dataset = open_dataset(first, mapped=True)
    assert not dataset.twins
    assert len(dataset.rows) == 40
    assert f"pokevla data index {first}" in caplog.text
    assert index_dataset(first)
    assert open_dataset(first, mapped=True).twins


def test_older_datasets_are_read_and_can_be_indexed(tmp_path: Path) -> None:
    root = write_toy_dataset(tmp_path / "data")
    written = {name: (root / name).read_bytes() for name in opening.TWINS.values()}
    expected = list(values(open_dataset(root)))
    for name in written:
        (root / name).unlink()
    assert list(values(open_dataset(root, mapped=True))) == expected
    assert index_dataset(root)
    assert not index_dataset(root), "they are there"
    assert {name: (root / name).read_bytes() for name in written} == written
    forget_checksums(root)
    with pytest.raises(DataError, match="no checksums of the tables"):
        index_dataset(root)


def test_verification_finds_damage_of_a_mapped_table(tmp_path: Path) -> None:
    root = write_toy_dataset(tmp_path / "data")
    path = root / "episodes.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"episodes\.arrow is damaged: the checksum of column .* differs.*data index"):
        verify_dataset(root)
    assert index_dataset(root)
    assert verify_dataset(root) == 96


def test_a_damaged_table_is_not_indexed(tmp_path: Path) -> None:
    root = write_toy_dataset(tmp_path / "data")
    (root / "samples.arrow").unlink()
    table = root / "samples.parquet"
    table.write_bytes(table.read_bytes()[:-8] + b"12345678")
    with pytest.raises(DataError, match=r"samples\.parquet is damaged"):
        index_dataset(root)
    assert not (root / "samples.arrow").exists()


def turns_table(turns: list[list[list[str]] | None]) -> rows.SampleRows:
    values = {"key": [str(n) for n in range(len(turns))], "shard": [0] * len(turns)}
    kind = pa.list_(pa.list_(pa.string()))
    table = pa.table({**values, rows.TURNS: pa.array(turns, kind)})
    return opening.rows_in_memory(table, None, 1)


def test_further_turns_are_read_and_measured_by_row(small_batches: None) -> None:
    turns: list[list[list[str]] | None] = [[["ä", "bc"]] * (n % 3) for n in range(40)]
    turns[5], turns[39] = None, [["", "机器人"], ["x", ""]]
    table = turns_table(turns)
    assert table.turns(4) == [("ä", "bc")]
    assert table.turns(5) == table.turns(3) == []
    assert table.turns(39) == [("", "机器人"), ("x", "")]
    order = np.random.default_rng(0).permutation(40)
    expected = [sum(len(text) for turn in turns[row] or [] for text in turn) for row in order]
    assert table.turn_lengths(order).tolist() == expected


@pytest.mark.parametrize("turn", [["only a question"], ["a", "b", "c"]])
def test_turns_that_are_no_pairs_are_named(turn: list[str]) -> None:
    with pytest.raises(DataError, match=r"Row 1 of samples\.parquet has further_turns that are not pairs"):
        turns_table([[], [turn]]).turns(1)


def test_a_mapped_table_from_before_turns_were_read_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = SAMPLE_SCHEMA.append(pa.field("further_turns", pa.list_(pa.list_(pa.string()))))
    words = {"split": "train", "source": "toy", "category": "general", "task": "qa", "answer_kind": "text"}
    with monkeypatch.context() as patch, DatasetWriter(tmp_path / "vlm", group="q", samples=schema) as writer:
        patch.setattr(rows, "READ_COLUMNS", tuple(name for name in rows.READ_COLUMNS if name != rows.TURNS))
        turns = {"width": 0, "height": 0, "further_turns": [["Where?", "There."]]}
        writer.add_sample("q0", {"json": b'{"key": "q0"}'}, {**words, "question": "What?", "answer": "A cup.", **turns})
        root = writer.finish({"statistics": None, "sources": [], "made_by": {}})
    dataset = open_dataset(root, mapped=True)
    assert not dataset.twins
    assert dataset.rows.turns(0) == [("Where?", "There.")]
    assert (
        f"lacks the column further_turns and is not used; make it again with: pokevla data index {root}" in caplog.text
    )
    assert index_dataset(root)
    mapped = open_dataset(root, mapped=True)
    assert mapped.twins
    assert mapped.rows.turns(0) == [("Where?", "There.")]
    assert verify_dataset(root) == 1
