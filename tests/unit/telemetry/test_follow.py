"""A file of JSON lines is followed while it grows, is cut, or is replaced."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pokevla.telemetry import follow
from pokevla.telemetry.follow import JsonlFollower
from pokevla.telemetry.jsonl import JsonlWriter


def append(path: Path, *rows: dict) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def steps(rows: list[dict]) -> list[int]:
    return [row["step"] for row in rows]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def test_each_line_is_given_once(path: Path) -> None:
    follower = JsonlFollower(path)
    assert follower.read() == []
    append(path, {"step": 1}, {"step": 2})
    assert steps(follower.read()) == [1, 2]
    append(path, {"step": 3})
    assert steps(follower.read()) == [3]
    assert follower.read() == []


def test_half_a_line_waits_for_its_end(path: Path) -> None:
    follower = JsonlFollower(path)
    path.write_text('{"step": 1}\n{"st')
    assert steps(follower.read()) == [1]
    with path.open("a") as file:
        file.write('ep": 2}\n')
    assert steps(follower.read()) == [2]


@pytest.mark.parametrize("tail_bytes", range(0, 40))
def test_the_tail_begins_with_a_whole_line(path: Path, tail_bytes: int) -> None:
    append(path, *({"step": step} for step in range(1, 10)))
    rows = steps(JsonlFollower(path, tail_bytes).read())
    line_bytes = len(json.dumps({"step": 1}) + "\n")
    assert rows == list(range(1, 10))[9 - tail_bytes // line_bytes :]


def test_a_file_that_appears_later_is_read_from_its_beginning_in_spite_of_a_tail(path: Path) -> None:
    follower = JsonlFollower(path, tail_bytes=0)
    append(path, {"step": 1})
    assert steps(follower.read()) == [1]


def test_what_a_resume_has_dropped_is_known_to_be_replaced(path: Path) -> None:
    append(path, *({"step": step} for step in range(1, 6)))
    follower = JsonlFollower(path)
    follower.read()
    with JsonlWriter(path, resume_step=2) as writer:  # replaces the file
        writer.write({"step": 3})
    assert steps(follower.read()) == [1, 2, 3]
    assert follower.replaced
    assert follower.read() == []
    assert not follower.replaced


def test_a_replacement_is_noticed_when_the_new_file_is_longer(path: Path) -> None:
    append(path, {"step": 1})
    follower = JsonlFollower(path)
    follower.read()
    other = path.with_name("other")
    append(other, *({"step": step} for step in range(5)))
    os.replace(other, path)
    assert steps(follower.read()) == [0, 1, 2, 3, 4]
    assert follower.replaced


def test_damaged_lines_are_counted_and_passed_over(path: Path) -> None:
    path.write_text('{"step": 1}\n{"step": 2, "lo{"step": 3}\n[4]\n{"step": 5}\n')
    follower = JsonlFollower(path)
    assert steps(follower.read()) == [1, 5]
    assert follower.damaged_lines == 2


def test_a_long_file_is_read_in_pieces_of_bounded_size(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "CHUNK_BYTES", 64)
    append(path, *({"step": step} for step in range(100)))
    follower = JsonlFollower(path)
    first = follower.read()
    assert 0 < len(first) <= 64 // len('{"step": 1}\n')
    assert steps(first + follower.read_all()) == list(range(100))


def test_a_hole_without_line_ends_does_not_stop_the_follower(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "CHUNK_BYTES", 64)
    path.write_bytes(b"\0" * 200 + b"\n")
    append(path, {"step": 7})
    follower = JsonlFollower(path)
    rows = [row for _ in range(8) for row in follower.read()]
    assert steps(rows) == [7]
    assert follower.damaged_lines > 0
