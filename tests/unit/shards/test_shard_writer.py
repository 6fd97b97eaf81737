"""Shards are byte for byte what webdataset writes, and the index points at the payloads."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
import xxhash
from webdataset.writer import TarWriter

from pokevla.errors import DataError
from pokevla.shards.shard_writer import PLAIN_HEADER, WEBDATASET_HEADER, ShardWriter

LONG = "k" * 150
SAMPLES = {
    "short": {"jpg": b"x" * 1000, "base.mask.png": b"", "json": b"{}"},
    "block": {"jpg": b"y" * 512, "json": b"{}"},
    LONG: {"jpg": b"z" * 513, "json": b"{}"},
}


def test_bytes_are_those_of_webdatasets_writer() -> None:
    ours, theirs = io.BytesIO(), io.BytesIO()
    writer = ShardWriter(ours, WEBDATASET_HEADER)
    reference = TarWriter(theirs, encoder=False, mtime=0, compress=False)
    for key, members in SAMPLES.items():
        writer.write(key, members)
        reference.write({"__key__": key, **members})
    writer.close()
    reference.close()
    assert ours.getvalue() == theirs.getvalue()


def test_entries_point_at_the_members_in_sorted_order() -> None:
    file = io.BytesIO()
    writer = ShardWriter(file, WEBDATASET_HEADER)
    for key, members in SAMPLES.items():
        writer.write(key, members)
    writer.close()
    raw = file.getvalue()
    assert [entry.key for entry in writer.entries] == list(SAMPLES)
    for entry in writer.entries:
        members = SAMPLES[entry.key]
        assert [member.extension for member in entry.members] == sorted(members)
        for member in entry.members:
            payload = members[member.extension]
            assert raw[member.offset : member.offset + member.size] == payload
            assert member.checksum == xxhash.xxh64_intdigest(payload)


def test_record_is_indexed_by_the_payload_behind_its_header(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        writer = ShardWriter(file, PLAIN_HEADER)
        for number in range(3):
            padding = -writer.next_start % 4096
            writer.write_record(f"k{number}", "bin", bytes(padding) + b"payload %d" % number, padding)
        writer.close()
    raw = path.read_bytes()
    for number, entry in enumerate(writer.entries):
        (member,) = entry.members
        assert member.offset % 4096 == 0
        assert raw[member.offset : member.offset + member.size] == b"payload %d" % number
        assert member.checksum == xxhash.xxh64_intdigest(b"payload %d" % number)
    with tarfile.open(path) as tar:
        assert tar.getnames() == ["k0.bin", "k1.bin", "k2.bin"]


@pytest.mark.parametrize("key", [LONG, "schön"])
def test_record_whose_key_would_shift_its_payload_is_refused(key: str) -> None:
    writer = ShardWriter(io.BytesIO(), PLAIN_HEADER)
    with pytest.raises(DataError, match=f"{key} is too long or not ASCII"):
        writer.write_record(key, "bin", b"x", 0)


@pytest.mark.parametrize("key", ["", "a\tb", "a\nb", "../a", "/a", "a\x1b[2J"])
def test_a_key_that_breaks_the_index_or_leaves_the_folder_is_refused(key: str) -> None:
    writer = ShardWriter(io.BytesIO(), PLAIN_HEADER)
    with pytest.raises(DataError, match="cannot name a tar member"):
        writer.write(key, {"bin": b"x"})
    assert not writer.entries
