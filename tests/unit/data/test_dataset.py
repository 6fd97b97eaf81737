from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pokevla.data.dataset import open_dataset, shard_sizes, usable_rows
from pokevla.data.inspection import contact_sheet, describe_sample, find_row, summarise, verify_dataset
from pokevla.data.reader import ShardReader
from pokevla.errors import DataError, UsageError
from pokevla.recipe.checking.datasets import count_usable, read_dataset_info


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
    assert shard_sizes(dataset, usable_rows(dataset, "all", 8)) == [11, 11]


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
    with pytest.raises(DataError, match=r"00000\.idx:3 is damaged"):
        ShardReader(open_dataset(root)).read(0)


def test_a_changed_table_fails_verification(robot_dataset: Callable[..., Path]) -> None:
    root = robot_dataset()
    assert verify_dataset(root) == 54
    other = robot_dataset("other", seed=5)
    (root / "episodes.parquet").write_bytes((other / "episodes.parquet").read_bytes())
    with pytest.raises(DataError, match="fingerprint"):
        verify_dataset(root)


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
    info = json.loads((root / "dataset.json").read_text())
    info["shards"] = {name: next(iter(info["shards"].values()))}
    (root / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match=r"dataset.json names the shard '.*': it (becomes|cannot)"):
        open_dataset(root)
