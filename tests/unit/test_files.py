"""Files are whole or absent, and a full disk is called a full disk."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pokevla.errors import CheckpointError, DiskFullError
from pokevla.files import (
    HashingFile,
    as_named_error,
    describe_file,
    write_json_atomically,
)


def test_an_atomic_write_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json_atomically(path, {"a": 1})
    write_json_atomically(path, {"a": 2})
    assert path.read_text() == '{\n  "a": 2\n}\n'
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_is_named_even_inside_another_error(tmp_path: Path, code: int) -> None:
    try:
        try:
            raise OSError(code, "no room")
        except OSError as inner:
            raise RuntimeError("PytorchStreamWriter failed") from inner
    except RuntimeError as outer:
        error = as_named_error(outer, tmp_path / "not" / "there" / "x.pt")
    assert isinstance(error, DiskFullError)
    assert "No room to write" in str(error)


def test_other_errors_are_not_called_a_full_disk(tmp_path: Path) -> None:
    error = as_named_error(PermissionError(errno.EACCES, "not yours"), tmp_path / "x")
    assert type(error) is CheckpointError


def test_a_checksum_sees_a_flipped_bit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abcd")
    before = describe_file(tmp_path, "a")
    (tmp_path / "a").write_bytes(b"abce")
    after = describe_file(tmp_path, "a")
    assert before.size == after.size == 4
    assert before.xxh64 != after.xxh64


def test_a_file_is_measured_while_it_is_written_as_if_it_were_read_again(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        out = HashingFile(file)
        for part in (b"abc", memoryview(b"defg"), b""):
            out.write(part)
        out.flush()
    assert out.described_as("a") == describe_file(tmp_path, "a")
