"""Reads are checked, bounded in open files, and safe for threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pokevla.errors import DamagedDataError, DataError
from pokevla.shards import shard_reader
from pokevla.shards.index import index_checksum, index_path
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


def write_again(path: Path, shift: int) -> None:
    """Replace shard and index by good ones of other content, each by a rename."""
    folder = path.parent / f"again-{shift}"
    folder.mkdir()
    other = make_shard(folder, path.name, shift)
    for name in (other, index_path(other)):
        name.rename(path.parent / name.name)


def test_an_open_shard_that_is_replaced_is_read_as_it_was(tmp_path: Path) -> None:
    path = make_shard(tmp_path)
    shards = Shards(tmp_path, REMEDY)
    entries = shards.index(path.name)
    shards.read_sample(path.name, entries[1])
    write_again(path, 1)
    assert [shards.read_sample(path.name, entry) for entry in entries] == [members_of(n) for n in range(3)]


@pytest.mark.parametrize("known", [True, False])
def test_a_shard_that_is_replaced_between_two_openings_is_refused(tmp_path: Path, known: bool) -> None:
    paths = [make_shard(tmp_path, f"a-{number:05d}.tar") for number in range(2)]
    checksums = {path.name: index_checksum(index_path(path).read_bytes()) for path in paths}
    shards = Shards(tmp_path, REMEDY, checksums if known else None, limit=1)
    buffers = [memoryview(bytearray(700))]
    for path in paths:
        shards.read_record(path.name, 1, buffers, 700)
    write_again(paths[0], 3)  # it is closed now
    with pytest.raises(DataError, match=r"a-00000\.tar was replaced or changed while it was in use.* Start again"):
        shards.read_record(paths[0].name, 1, buffers, 700, check=False)


def test_a_tar_under_an_old_index_is_noticed_although_records_are_not_checked_again(tmp_path: Path) -> None:
    paths = [make_shard(tmp_path, f"a-{number:05d}.tar") for number in range(2)]
    shards = Shards(tmp_path, REMEDY, limit=1)
    buffers = [memoryview(bytearray(1400))]
    for path in paths:
        shards.read_record(path.name, 2, buffers, 1400)
    (tmp_path / "again").mkdir()
    make_shard(tmp_path / "again", paths[0].name, 4).rename(paths[0])  # its index stays
    with pytest.raises(DataError, match="was replaced or changed while it was in use") as told:
        shards.read_record(paths[0].name, 2, buffers, 1400, check=False)
    assert not isinstance(told.value, DamagedDataError), "skipping samples would not help"


@pytest.mark.parametrize("way", ["overwritten", "cut"])
def test_an_open_shard_that_is_written_to_is_refused(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_reader, "CHANGED_EVERY_S", 0.0)
    path = make_shard(tmp_path)
    shards = Shards(tmp_path, REMEDY)
    buffers = [memoryview(bytearray(1400))]
    shards.read_record(path.name, 2, buffers, 1400)
    content = bytearray(path.read_bytes())
    start = shards.index(path.name).first_member(2)[0]
    content[start + 9] ^= 1
    path.write_bytes(content if way == "overwritten" else content[: start + 3])
    with pytest.raises(DataError, match="was replaced or changed while it was in use"):
        shards.read_record(path.name, 2, buffers, 1400, check=False)


def test_a_shard_that_comes_back_the_same_is_read_on(tmp_path: Path) -> None:
    paths = [make_shard(tmp_path, f"a-{number:05d}.tar") for number in range(2)]
    shards = Shards(tmp_path, REMEDY, limit=1)
    buffers = [memoryview(bytearray(700))]
    for path in paths:
        shards.read_record(path.name, 1, buffers, 700)
    for path in (paths[0], index_path(paths[0])):  # as a copy on a local disk that was evicted and made again
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    shards.read_record(paths[0].name, 1, buffers, 700, check=False)
    assert bytes(buffers[0]) == members_of(1)["jpg"]


def test_an_index_that_is_older_than_its_tar_is_said(tmp_path: Path) -> None:
    path = make_shard(tmp_path)
    (tmp_path / "again").mkdir()
    make_shard(tmp_path / "again", path.name, 4).rename(path)
    os.utime(index_path(path), ns=(0, path.stat().st_mtime_ns - 10**9))
    shards = Shards(tmp_path, REMEDY)
    with pytest.raises(DamagedDataError, match=r"is corrupted: .* differs \(it was written after its index\)"):
        shards.read_sample(path.name, shards.index(path.name)[1])
