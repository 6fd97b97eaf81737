"""The picture of true and predicted points."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pokevla.errors import DiskFullError
from pokevla.evaluation.vlm.grounding import Question, judge
from pokevla.evaluation.vlm.point_pictures import points_picture


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
