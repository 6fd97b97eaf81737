"""A conversion for another number of ranks is refused before it fills the disk."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from pokevla.checkpoint import universal
from pokevla.errors import CheckpointError, DiskFullError
from pokevla.files.checksums import StoredFile, measure_file, with_checksum
from pokevla.files.texts import write_json
from pokevla.runs.checkpoints import CONVERTED, MARKER, CheckpointInfo

INFO = CheckpointInfo(1, 8, 2, 2, "fp32", "a", "b", files=(StoredFile("state/x.pt", 2**62, "0"),))


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match="resume with 2 ranks"):
        universal.convert(tmp_path, INFO)
    assert list(tmp_path.iterdir()) == []


def test_what_is_converted_is_not_converted_again(tmp_path: Path) -> None:
    folder = tmp_path / CONVERTED
    folder.mkdir()
    (folder / "x.pt").write_bytes(b"whole")
    content = {"step": 1, "world_size": 2, "files": [asdict(measure_file(folder, "x.pt"))]}
    write_json(folder / MARKER, with_checksum(content))
    assert universal.convert(tmp_path, INFO) == folder
    (folder / "x.pt").write_bytes(b"Whole")
    with pytest.raises(DiskFullError):  # a damaged one is
        universal.convert(tmp_path, INFO)


def test_a_state_that_is_not_deepspeeds_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / CONVERTED).mkdir()  # cut short: it has no marker
    small = CheckpointInfo(1, 8, 2, 2, "fp32", "a", "b")
    with pytest.raises(CheckpointError):
        universal.convert(tmp_path, small)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
