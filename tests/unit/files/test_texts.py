"""Reading text and JSON within bounds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pokevla.errors import CheckpointError, DataError
from pokevla.files.records import as_type
from pokevla.files.texts import MAX_DEPTH, open_regular, parse_json, read_bytes, read_json_object, read_text, write_json


def test_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")
    with pytest.raises(DataError, match=r"f cannot be read .it is not a regular file"):
        read_bytes(tmp_path / "f")


def test_a_folder_and_a_device_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Is a directory"):
        read_bytes(tmp_path)
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(Path("/dev/zero"))


def test_a_file_beyond_the_limit_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(CheckpointError, match=r"has 1099511627776 bytes, more than the 10 .* Again"):
        read_bytes(tmp_path / "a", max_bytes=10, kind=CheckpointError, remedy="Again.")


def test_text_that_is_not_utf_8_is_named_with_its_line_and_a_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one\ntwo \xff")
    with pytest.raises(DataError, match="a:2 is not UTF-8"):
        read_text(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"\xef\xbb\xbfone")
    assert read_text(tmp_path / "b") == "one"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("[" * 200 + "]" * 200, "nested too deeply"),
        ('{"a":' * 80 + "1" + "}" * 80, "nested too deeply"),
        ("9" * 5000, "too large"),
        ("18446744073709551616", "too large"),
        ("-1e999", "too large"),
        ("NaN", "NaN is not a number"),
        ('{"a": [-Infinity]}', "-Infinity is not a number"),
        ('{"a": 1, "b": 2, "a": 3}', "'a' is given twice"),
        ('{"a": 1', "not JSON"),
        ("", "not JSON"),
    ],
)
def test_json_beyond_the_bounds_is_named(text: str, reason: str) -> None:
    with pytest.raises(DataError, match=f"f.json:3 is damaged: .*{reason}") as told:
        parse_json(text, "f.json:3")
    assert len(str(told.value)) < 200


def test_json_within_the_bounds_is_read() -> None:
    assert parse_json('{"a": [18446744073709551615, -9223372036854775808, 1e308]}', "f") == {
        "a": [2**64 - 1, -(2**63), 1e308]
    }
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH, "f")


def test_an_object_is_asked_for_by_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("[1]", encoding="utf-8")
    with pytest.raises(DataError, match="does not hold an object"):
        read_json_object(tmp_path / "a")


def test_a_path_that_is_not_utf_8_survives_in_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    write_json(tmp_path / "a", {"path": name}, ensure_ascii=False)
    assert read_json_object(tmp_path / "a") == {"path": name}


@pytest.mark.parametrize(
    ("content", "reason"),
    [({"a": "1"}, r"a: .*integer"), ({"a": True}, "a: .*integer"), ([], "object"), ({"b": 1}, "b: .*integer")],
)
def test_a_field_of_another_type_is_named(content: object, reason: str) -> None:
    with pytest.raises(DataError, match=f"f.json is damaged: .*{reason}"):
        as_type(content if content != {"b": 1} else {"b": [1]}, dict[str, int], "f.json")
