"""Lines are whole, in order and all there, also after the disk was full."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from pokevla.files import appending
from pokevla.files.appending import LineFile
from tests.conftest import SmallDisk


def line(number: int) -> bytes:
    return f"{number:04d} {'x' * 5000}\n".encode()  # more than a block: a full disk takes a part of it


def test_lines_wait_for_room_and_none_is_lost(disk_to_fill: SmallDisk, caplog: pytest.LogCaptureFixture) -> None:
    file = LineFile(disk_to_fill.folder / "lines")
    file.write(line(0))
    disk_to_fill.fill()
    with caplog.at_level(logging.WARNING):
        for number in range(1, 50):
            file.write(line(number))
            assert (disk_to_fill.folder / "lines").read_bytes()[-1:] == b"\n"
    on_full_disk = (disk_to_fill.folder / "lines").read_bytes()
    disk_to_fill.free()
    with caplog.at_level(logging.WARNING):
        file.write(line(50))
    file.close()

    assert on_full_disk == line(0)
    assert (disk_to_fill.folder / "lines").read_bytes() == b"".join(map(line, range(51)))
    assert [record.message.partition("lines ")[2] for record in caplog.records] == [
        "cannot be written (No space left on device): its lines wait in memory",
        "can be written again: nothing is missing",
    ]


def test_closing_writes_what_waits_or_says_what_is_lost(
    disk_to_fill: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = LineFile(disk_to_fill.folder / "first"), LineFile(disk_to_fill.folder / "second")
    disk_to_fill.fill()
    for file in (first, second):
        file.write(line(0))
    second.close()
    disk_to_fill.free()
    first.close()
    first.close()

    assert (disk_to_fill.folder / "first").read_bytes() == line(0)
    assert (disk_to_fill.folder / "second").read_bytes() == b""
    assert "1 lines of" in caplog.text


def test_memory_is_bounded(disk_to_fill: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appending, "MAX_WAITING", 3)
    file = LineFile(disk_to_fill.folder / "lines")
    disk_to_fill.fill()
    for number in range(10):
        file.write(line(number))
    disk_to_fill.free()
    file.close()
    assert (disk_to_fill.folder / "lines").read_bytes() == b"".join(map(line, range(7, 10)))


@pytest.mark.timeout(20)
def test_a_pipe_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lines")
    with pytest.raises(OSError, match="No such device"):
        LineFile(tmp_path / "lines")
