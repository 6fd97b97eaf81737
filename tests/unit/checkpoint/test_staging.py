"""Files in memory come out as they went in, whatever the blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.checkpoint.staging import Snapshot

FILES = st.dictionaries(st.text("abc/.", min_size=1, max_size=6), st.lists(st.binary(max_size=40)), max_size=4)


def fill(snapshot: Snapshot, files: dict[str, list[bytes]]) -> None:
    for name, parts in files.items():
        snapshot.begin(name)
        assert [snapshot.write(part) for part in parts] == [len(part) for part in parts]
        snapshot.end()


@given(FILES, FILES, st.integers(1, 50), st.integers(1, 50))
def test_what_was_written_is_read_also_when_the_memory_is_used_again(
    before: dict[str, list[bytes]], files: dict[str, list[bytes]], block: int, chunk: int
) -> None:
    snapshot = Snapshot(block)
    fill(snapshot, before)
    snapshot.clear()
    fill(snapshot, files)
    assert snapshot.names == list(files)
    for name, parts in files.items():
        chunks = [bytes(part) for part in snapshot.read(name, chunk)]
        assert b"".join(chunks) == b"".join(parts)
        assert all(0 < len(part) <= chunk for part in chunks)


def test_a_file_that_was_cut_short_is_none() -> None:
    snapshot = Snapshot()
    snapshot.begin("half")
    snapshot.write(b"1234")
    assert snapshot.names == []
    with pytest.raises(KeyError):
        list(snapshot.read("half"))
    snapshot.clear()
    with pytest.raises(ValueError, match="no file was begun"):
        snapshot.end()
