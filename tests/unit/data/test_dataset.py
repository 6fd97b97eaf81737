from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pokevla.data.dataset import open_dataset, shard_sizes, usable_rows
from pokevla.data.inspection import contact_sheet, describe_sample, find_row, summarise, verify_dataset
from pokevla.data.reader import ShardReader
from pokevla.data.statistics import compute_statistics
from pokevla.data.writer import DatasetWriter
from pokevla.embodiment.libero import LIBERO
from pokevla.errors import DataError, UsageError
from pokevla.recipe.checking.datasets import count_usable, read_dataset_info, read_table
from pokevla.shards.index import load_index
from tests.flips import assert_no_flip_is_used_silently, flipped
from tests.toys import forget_checksums


def test_a_missing_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a dataset"):
        open_dataset(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["{", '{"schema_version": 99}', "[]", '{"schema_version": 1}'])
def test_a_broken_or_foreign_dataset_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=r"dataset\.json"):
        open_dataset(tmp_path)


def test_a_damaged_table_is_refused(robot_dataset: Callable[..., Path]) -> None:
    root = robot_dataset()
    (root / "samples.parquet").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"samples\.parquet"):
        open_dataset(root)


def test_chunk_starts_leave_a_whole_chunk(robot_dataset: Callable[..., Path]) -> None:
    dataset = open_dataset(robot_dataset(demos=2, frames=20))  # 18 frames each without the two no-ops
    frames = dataset.samples["frame"].to_numpy()
    assert dataset.samples.num_rows == 36
    assert frames[usable_rows(dataset, "train", 8)].tolist() == list(range(11))  # OFT: T - 7
    assert len(usable_rows(dataset, "all", 8)) == 22
    assert len(usable_rows(dataset, "val")) == 18
    with pytest.raises(DataError, match="split `train` with 19 actions"):
        usable_rows(dataset, "train", 19)
    assert shard_sizes(dataset, usable_rows(dataset, "all", 8)).tolist() == [11, 11]


def damage(path: Path, keep: int | None = None, flip: int | None = None) -> None:
    raw = bytearray(path.read_bytes())
    if flip is not None:
        raw[flip] ^= 0xFF
    path.write_bytes(raw[:keep])


def test_a_corrupted_shard_is_named_with_its_key(robot_dataset: Callable[..., Path]) -> None:
    root = robot_dataset()
    damage(root / "shards" / "libero_object-00000.tar", flip=600)
    with pytest.raises(DataError, match=r"libero_object-00000\.tar is corrupted.*-e0000-f0000\.base\.jpg"):
        ShardReader(open_dataset(root)).read(0)
    with pytest.raises(DataError, match="corrupted"):
        verify_dataset(root)


def test_a_truncated_shard_is_named_with_its_key(robot_dataset: Callable[..., Path]) -> None:
    root = robot_dataset()
    damage(root / "shards" / "libero_object-00001.tar", keep=4000)
    reader = ShardReader(open_dataset(root))
    assert reader.read(0)
    with pytest.raises(DataError, match=r"libero_object-00001\.tar is truncated.*-f"):
        reader.read(20)


def test_a_missing_shard_or_index_is_named(robot_dataset: Callable[..., Path]) -> None:
    root = robot_dataset()
    (root / "shards" / "libero_object-00000.tar").unlink()
    with pytest.raises(DataError, match=r"00000\.tar is missing"):
        ShardReader(open_dataset(root)).read(0)
    with pytest.raises(DataError, match=r"00000\.tar is missing"):
        verify_dataset(root)
    (root / "shards" / "libero_object-00000.idx").unlink()
    with pytest.raises(DataError, match=r"00000\.idx is missing"):
        ShardReader(open_dataset(root)).read(0)


@pytest.mark.parametrize("text", [b"", b"hello\n", b"\xff\xfe"])
def test_a_damaged_index_is_named(robot_dataset: Callable[..., Path], text: bytes) -> None:
    root = robot_dataset()
    (root / "shards" / "libero_object-00000.idx").write_bytes(text)
    with pytest.raises(DataError, match=r"00000\.idx is damaged"):
        ShardReader(open_dataset(root)).read(0)


def test_a_line_of_an_index_that_is_cut_is_named(robot_dataset: Callable[..., Path]) -> None:
    root = robot_dataset()
    index = root / "shards" / "libero_object-00000.idx"
    index.write_text("\n".join(index.read_text().splitlines()[:3])[:-40])
    with pytest.raises(DataError, match=r"00000\.idx is damaged: its checksum differs"):
        ShardReader(open_dataset(root)).read(0)
    with pytest.raises(DataError, match=r"00000\.idx:3 is damaged"):
        load_index(index.with_suffix(".tar"), "")


def test_a_changed_table_fails_verification(robot_dataset: Callable[..., Path]) -> None:
    root = robot_dataset()
    assert verify_dataset(root) == 54
    other = robot_dataset("other", seed=5)
    (root / "episodes.parquet").write_bytes((other / "episodes.parquet").read_bytes())
    with pytest.raises(DataError, match=r"episodes\.parquet"):
        verify_dataset(root)
    forget_checksums(root)
    with pytest.raises(DataError, match="fingerprint"):
        verify_dataset(root)


@pytest.fixture
def frame_dataset(tmp_path: Path) -> Path:
    """A robot dataset of two frames with few columns, small enough to damage each byte of its files."""
    samples = pa.schema([("key", pa.string()), ("shard", pa.int32()), ("proprio", pa.list_(pa.float32()))])
    episodes = pa.schema([("episode", pa.int32()), ("length", pa.int32())])
    statistics = compute_statistics([np.zeros((2, LIBERO.action_width))], [np.ones((2, LIBERO.proprio_width))], LIBERO)
    with DatasetWriter(
        tmp_path / "frames", group="frame", samples=samples, episodes=episodes, embodiment=LIBERO
    ) as writer:
        for frame in range(2):
            members = {f"{view}.jpg": b"image" for view in LIBERO.views} | {"json": b'{"key":"k%d"}' % frame}
            writer.add_sample(f"k{frame}", members, {"proprio": [0.5] * LIBERO.proprio_width})
        writer.add_episode({"episode": 0, "length": 2})
        return writer.finish({"statistics": statistics.to_dict()})


def everything(root: Path) -> Any:
    """All that a training reads, as far as it can be compared."""
    dataset = open_dataset(root)
    reader = ShardReader(dataset)
    try:
        statistics = None if dataset.statistics is None else dataset.statistics.to_dict()
        tables = [table.to_pydict() for table in (dataset.samples, dataset.episodes) if table is not None]
        return dataset.info, statistics, tables, reader.read(0)
    finally:
        reader.close()


@pytest.mark.parametrize("name", ["dataset.json", "samples.parquet", "episodes.parquet", "shards/frame-00000.idx"])
def test_every_flipped_byte_is_found_or_changes_nothing(frame_dataset: Path, name: str) -> None:
    assert_no_flip_is_used_silently(frame_dataset / name, lambda: everything(frame_dataset), frame_dataset)


def test_a_dataset_of_before_checksums_is_read_and_damage_is_named_where_it_shows(frame_dataset: Path) -> None:
    before = everything(frame_dataset)
    forget_checksums(frame_dataset)
    assert everything(frame_dataset)[1:] == before[1:]
    path = frame_dataset / "samples.parquet"
    for changed in list(flipped(path.read_bytes()))[::3]:
        path.write_bytes(changed)
        with contextlib.suppress(DataError):  # no other error
            open_dataset(frame_dataset)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"statistics": {"action": float("nan")}}, "NaN is not a number of JSON"),
        ({"shards": {"../x.tar": {}}}, r"names the shard '\.\./x\.tar'"),
        ({"shards": {"x.tar": 5}}, r"the shard x\.tar is 5"),
        ({"num_samples": "many"}, "num_samples is 'many'"),
        ({"tables": []}, "does not match its own checksum"),
    ],
)
def test_impossible_entries_are_refused(frame_dataset: Path, entry: dict[str, Any], words: str) -> None:
    forget_checksums(frame_dataset)
    path = frame_dataset / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entry))
    with pytest.raises(DataError, match=words):
        open_dataset(frame_dataset)


def test_a_table_without_a_column_is_refused(frame_dataset: Path) -> None:
    table = pq.read_table(frame_dataset / "samples.parquet").drop_columns(["shard"])
    pq.write_table(table, frame_dataset / "samples.parquet")
    with pytest.raises(DataError, match=r"samples\.parquet cannot be read .*shard"):
        read_table(frame_dataset, "samples.parquet", {}, ["key", "shard"])


def test_a_sample_can_be_looked_at(robot_dataset: Callable[..., Path]) -> None:
    dataset = open_dataset(robot_dataset())
    key = dataset.samples["key"][3].as_py()
    assert find_row(dataset, key) == find_row(dataset, "3") == 3
    with pytest.raises(UsageError, match="no sample 'x'"):
        find_row(dataset, "x")
    fields = describe_sample(dataset, 3)
    assert set(fields["members"]) == {"base.jpg", "wrist.jpg", "base.mask.png", "wrist.mask.png", "json"}
    assert contact_sheet(dataset, [0, 3]).size[0] == 2 * 192
    summary = summarise(dataset)
    assert summary["splits"] == {"train": 36, "val": 18}
    assert json.dumps(summary)


def test_a_plan_counts_the_samples_that_the_loader_draws_from(robot_dataset: Callable[..., Path]) -> None:
    root = robot_dataset()
    info, dataset = read_dataset_info(root), open_dataset(root)
    for split in ("train", "val", "all"):
        for chunk_length in (1, 8):
            assert count_usable(info, split, chunk_length) == len(usable_rows(dataset, split, chunk_length))
    assert (count_usable(info, "train", 8), count_usable(info, "all"), info.num_samples) == (22, 54, 54)


@pytest.mark.parametrize("name", ["../../other/x.tar", "/etc/x.tar", "a\nb.tar"])
def test_a_shard_outside_the_dataset_is_refused(robot_dataset: Callable[..., Path], name: str) -> None:
    root = robot_dataset()
    forget_checksums(root)
    info = json.loads((root / "dataset.json").read_text())
    info["shards"] = {name: next(iter(info["shards"].values()))}
    (root / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match=r"dataset.json names the shard '.*': it (becomes|cannot)"):
        open_dataset(root)
