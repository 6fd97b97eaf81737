"""Size and checksum are those of the bytes, read or written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pokevla.errors import CheckpointError
from pokevla.files.checksums import CHECKSUM, HashingFile, measure_file, with_checksum, without_checksum


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
