"""A file of an evaluation has its name only when it is whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pokevla.errors import DataError, DiskFullError
from pokevla.evaluation.files import whole_file, write_json
from pokevla.evaluation.vlm.grounding import Question, judge
from pokevla.evaluation.vlm.point_pictures import points_picture


def test_an_interrupted_write_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"b": 1, "a": 2})

    def interrupted() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("{")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert list(json.loads(path.read_text())) == ["b", "a"]
    assert list(tmp_path.iterdir()) == [path]


def test_no_room_is_told_as_such_and_leaves_nothing(
    tmp_path: Path, room_for: Callable[[int], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "summary.json"
    with room_for(100), pytest.raises(DiskFullError, match=f"No room to write {path}"):
        write_json(path, {"text": "x" * 200})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match="could not be written"):
        write_json(tmp_path / "taken" / "summary.json", {})


def test_a_picture_of_points_is_there_whole_or_not_at_all(
    tmp_path: Path, room_for: Callable[[int], AbstractContextManager[None]]
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    mask = np.ones((64, 64), dtype=bool)
    question = Question("k", "grounding", "point", "Where?", "[(0.5, 0.5)]", Image.fromarray(noise), mask)
    verdict = judge(question, "[(0.5, 0.5)]")
    path = tmp_path / "points.png"

    with room_for(2_000), pytest.raises(DiskFullError):
        points_picture(path, [question], [verdict], 1)
    assert list(tmp_path.iterdir()) == []

    points_picture(path, [question], [verdict], 1)
    assert Image.open(path).size == (1036, 300)
