from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from pokevla.errors import DataError, DiskFullError
from pokevla.evaluation.drawing.videos import write_video

NOISE = [np.random.default_rng(n).integers(0, 255, (240, 320, 3), dtype=np.uint8) for n in range(6)]
"""Frames that no codec makes small: about 300 KB of video."""


def test_a_disk_that_is_full_is_told_as_such_and_leaves_no_video(small_disk: Path, capfd) -> None:
    with pytest.raises(DiskFullError, match=r"No room to write .*trial\.mp4 \("):
        write_video(small_disk / "trial.mp4", NOISE, 3)
    assert list(small_disk.iterdir()) == []
    assert capfd.readouterr().err == "", "ffmpeg's own words belong into the error"


def test_a_video_that_may_not_grow_leaves_the_old_one_as_it_was(
    tmp_path: Path, room_for: Callable[[int], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "trial.mp4"
    write_video(path, NOISE[:1], 3)
    before = path.read_bytes()
    with room_for(20_000), pytest.raises(DiskFullError):
        write_video(path, NOISE, 3)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_ffmpeg_refuses_is_an_error_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Cannot write"):
        write_video(tmp_path / "trial.unknown", NOISE[:1], 3)
    assert list(tmp_path.iterdir()) == []
