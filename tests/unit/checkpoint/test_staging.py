"""Files in memory come out as they went in, whatever the blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.checkpoint.staging import StagingBuffer

FILES = st.dictionaries(st.text("abc/.", min_size=1, max_size=6), st.lists(st.binary(max_size=40)), max_size=4)


def fill(buffer: StagingBuffer, files: dict[str, list[bytes]]) -> None:
    for name, parts in files.items():
        buffer.begin(name)
        assert [buffer.write(part) for part in parts] == [len(part) for part in parts]
        buffer.end()


@given(FILES, FILES, st.integers(1, 50), st.integers(1, 50))
def test_what_was_written_is_read_also_when_the_memory_is_used_again(
    before: dict[str, list[bytes]], files: dict[str, list[bytes]], block: int, chunk: int
) -> None:
    buffer = StagingBuffer(block)
    fill(buffer, before)
    buffer.clear()
    fill(buffer, files)
    assert buffer.names == list(files)
    for name, parts in files.items():
        chunks = [bytes(part) for part in buffer.read(name, chunk)]
        assert b"".join(chunks) == b"".join(parts)
        assert all(0 < len(part) <= chunk for part in chunks)


def test_a_file_that_was_cut_short_is_none() -> None:
    buffer = StagingBuffer()
    buffer.begin("half")
    buffer.write(b"1234")
    assert buffer.names == []
    with pytest.raises(KeyError):
        list(buffer.read("half"))
    buffer.clear()
    with pytest.raises(ValueError, match="no file has been started"):
        buffer.end()
