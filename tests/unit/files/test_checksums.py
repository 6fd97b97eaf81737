"""Size and checksum are those of the bytes, read or written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pokevla.errors import CheckpointError
from pokevla.files.checksums import (
    CHECKSUM,
    HashingFile,
    StoredFile,
    file_damage,
    measure_file,
    stored_files,
    with_checksum,
    without_checksum,
)


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


CONTENT = {"b": (1, 2.5, None), "a": {"x": "ü", "y": [True, 1e300, -0.0]}, "7": {}}


def test_a_document_is_unchanged_by_writing_and_reading_it_in_any_layout() -> None:
    for layout in ({"indent": 2}, {"sort_keys": True}, {"ensure_ascii": False, "separators": (",", ":")}):
        stored = json.loads(json.dumps(with_checksum(CONTENT), **layout))
        assert without_checksum(stored, Path("x.json")) == json.loads(json.dumps(CONTENT))


def test_a_changed_document_is_refused_and_one_without_checksum_is_not() -> None:
    stored = with_checksum(CONTENT)
    for change in ({"b": [1, 2.5, 0]}, {"c": 1}, {CHECKSUM: None}, {CHECKSUM: 5}):
        with pytest.raises(CheckpointError, match=r"x\.json is damaged.*Restore it"):
            without_checksum({**stored, **change}, Path("x.json"), kind=CheckpointError, remedy="Restore it.")
    assert without_checksum(dict(CONTENT), Path("x.json")) == CONTENT
    with pytest.raises(CheckpointError, match="does not match its own checksum"):
        without_checksum(dict(CONTENT), Path("x.json"), required=True, kind=CheckpointError)


def test_what_is_wrong_with_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abcd")
    good = measure_file(tmp_path, "a")
    assert file_damage(tmp_path, good) is None
    (tmp_path / "folder").mkdir()
    for name, size, words in (
        ("a", 3, "has 4 bytes instead of 3"),
        ("b", 4, "is missing"),
        ("folder", 4, "is a folder"),
        ("a\0b", 4, "cannot be read"),
        ("a/b", 4, "cannot be read (Not a directory)"),
    ):
        assert words in str(file_damage(tmp_path, StoredFile(name, size, good.xxh64)))
    (tmp_path / "a").write_bytes(b"abce")
    assert "its checksum differs" in str(file_damage(tmp_path, good))


@pytest.mark.parametrize("rows", [None, 5, [5], [{"name": "a"}], [{"name": 1, "size": 2, "xxh64": "3"}]])
def test_a_list_of_files_that_is_not_one_is_refused(rows: object) -> None:
    with pytest.raises(CheckpointError, match=r"x\.json is damaged.*Restore it"):
        stored_files(rows, Path("x.json"), kind=CheckpointError, remedy="Restore it.")
