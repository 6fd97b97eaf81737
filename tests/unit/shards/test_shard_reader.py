"""Reads are checked, bounded in open files, and safe for threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pokevla.errors import DataError
from pokevla.shards.index import index_path
from pokevla.shards.shard_reader import Shards
from tests.unit.shards.toy_shards import KEYS, make_shard, members_of

REMEDY = "Make the shard again."


def open_tars(folder: Path) -> list[str]:
    links = [link for link in Path("/proc/self/fd").iterdir() if link.exists()]
    return sorted(Path(os.readlink(link)).name for link in links if os.readlink(link).startswith(str(folder)))


def test_sample_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = make_shard(tmp_path)
    shards = Shards(tmp_path, REMEDY)
    entries = shards.index(path.name)
    assert [entry.key for entry in entries] == KEYS
    assert [shards.read_sample(path.name, entry) for entry in entries] == [members_of(n) for n in range(3)]


def test_payload_fills_several_buffers_in_turn(tmp_path: Path) -> None:
    path = make_shard(tmp_path)
    shards = Shards(tmp_path, REMEDY)
    first, empty, second = bytearray(1000), bytearray(), bytearray(400)
    shards.read_record(path.name, 2, [memoryview(first), memoryview(empty), memoryview(second)], 1400)
    assert bytes(first + second) == members_of(2)["jpg"]


def test_open_files_are_bounded_and_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    paths = [make_shard(tmp_path, f"a-{number:05d}.tar") for number in range(5)]
    shards = Shards(tmp_path, REMEDY, limit=2)

    def read(number: int) -> bool:
        name = paths[number % 5].name
        entry = shards.index(name)[number % 3]
        return shards.read_sample(name, entry) == members_of(number % 3)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(400)))
    assert len(open_tars(tmp_path)) == 2
    shards.close()
    assert open_tars(tmp_path) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [("flip", r"is corrupted: the checksum of a-0001\.jpg"), ("cut", "is truncated: a-0001"), ("remove", "is missing")],
)
def test_damaged_shard_is_named_with_key_and_remedy(tmp_path: Path, damage: str, message: str) -> None:
    path = make_shard(tmp_path)
    shards = Shards(tmp_path, REMEDY)
    entry = shards.index(path.name)[1]
    content = bytearray(path.read_bytes())
    content[entry.members[0].offset] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flip" else content[: entry.members[0].offset + 10])
    with pytest.raises(DataError, match=message) as caught:
        shards.read_sample(path.name, entry)
    assert str(path) in str(caught.value)
    assert KEYS[1] in str(caught.value)
    assert REMEDY in str(caught.value)


def test_size_in_a_damaged_index_is_not_allocated(tmp_path: Path) -> None:
    path = make_shard(tmp_path)
    index = index_path(path)
    index.write_text(index.read_text().replace("\t1400\t", f"\t{1 << 50}\t"))
    shards = Shards(tmp_path, REMEDY)
    with pytest.raises(DataError, match="is truncated: a-0002"):
        shards.read_sample(path.name, shards.index(path.name)[2])


def test_size_in_an_index_that_does_not_fit_the_payload_is_refused(tmp_path: Path) -> None:
    path = make_shard(tmp_path)
    shards = Shards(tmp_path, REMEDY)
    with pytest.raises(DataError, match=r"does not fit its index: a-0002 has 1400 B there instead of 1000"):
        shards.read_record(path.name, 2, [memoryview(bytearray(1000))], 1000)
    with pytest.raises(DataError, match=r"a-00000\.tar has 3 samples and not 4"):
        shards.read_record(path.name, 3, [memoryview(bytearray(1000))], 1000)


def test_index_of_another_checksum_or_kind_is_refused(tmp_path: Path) -> None:
    path = make_shard(tmp_path)
    with pytest.raises(DataError, match=r"idx is damaged: its checksum differs\. Make the shard again"):
        Shards(tmp_path, REMEDY, {path.name: "0" * 16}).index(path.name)
    index_path(path).unlink()
    os.mkfifo(index_path(path))  # opening it would wait for a writer
    with pytest.raises(DataError, match="not a regular file"):
        Shards(tmp_path, REMEDY).index(path.name)


def test_negative_numbers_in_an_index_are_refused(tmp_path: Path) -> None:
    path = make_shard(tmp_path)
    index = index_path(path)
    index.write_text(index.read_text().replace("\t1400\t", "\t-1400\t"))
    with pytest.raises(DataError, match=r"idx:6 is damaged.*Make the shard again"):
        Shards(tmp_path, REMEDY).index(path.name)


def test_a_long_damaged_line_of_an_index_gives_a_short_message(tmp_path: Path) -> None:
    index = make_shard(tmp_path).with_suffix(".idx")
    index.write_text(index.read_text() + "x" * 50_000 + "\n")
    with pytest.raises(DataError, match=r"idx:\d+ is damaged") as told:
        Shards(tmp_path, "Make it again.").index("a-00000.tar")
    assert len(str(told.value)) < 500
