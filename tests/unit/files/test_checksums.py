"""Size and checksum are those of the bytes, read or written."""

from __future__ import annotations

from pathlib import Path

from pokevla.files.checksums import HashingFile, measure_file


def test_a_checksum_sees_a_flipped_bit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abcd")
    before = measure_file(tmp_path, "a")
    (tmp_path / "a").write_bytes(b"abce")
    after = measure_file(tmp_path, "a")
    assert before.size == after.size == 4
    assert before.xxh64 != after.xxh64


def test_a_file_is_measured_while_it_is_written_as_if_it_were_read_again(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        out = HashingFile(file)
        for part in (b"abc", memoryview(b"defg"), b""):
            out.write(part)
        out.sync()
    assert out.stored_file("a") == measure_file(tmp_path, "a")
