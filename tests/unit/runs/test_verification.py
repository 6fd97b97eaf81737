"""Damage to a checkpoint is found whatever it is, and passed over where something good is left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pokevla.errors import CheckpointError
from pokevla.files.checksums import CHECKSUM
from pokevla.runs.checkpoints import MARKER, STATE, list_checkpoints, read_info
from pokevla.runs.verification import damages, latest_complete, verify
from tests.flips import assert_no_flip_is_used_silently
from tests.unit.runs.whole_checkpoints import put

RECIPE = """\
kind: pretrain
name: toy
data: {datasets: [{path: unused}]}
model: {preset: tiny}
batch: {global: 8, micro: 2}
optim: {lr: 1.0e-3}
steps: 100
"""


def test_the_newest_whole_checkpoint_is_found(tmp_path: Path) -> None:
    put(tmp_path, 9)
    newest = put(tmp_path, 10)
    latest = latest_complete(tmp_path)
    assert latest is not None
    assert (latest[0], latest[1].step) == (newest, 10)
    earlier = latest_complete(tmp_path, before=10)
    assert earlier is not None
    assert earlier[1].step == 9


def test_a_run_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert latest_complete(tmp_path) is None


def edit_marker(folder: Path, **values: Any) -> None:
    """Change COMPLETE.json by hand, which leaves its checksum as it was."""
    content = json.loads((folder / MARKER).read_text())
    (folder / MARKER).write_text(json.dumps({**content, **values}))


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_read_fail(path: Path) -> None:
    """A regular file whose read fails with EIO, and whose size is as recorded."""
    path.unlink()
    path.symlink_to("/proc/self/mem")
    marker = path.parent.parent / MARKER
    content = json.loads(marker.read_text())
    content["files"][0]["size"] = path.stat().st_size
    del content[CHECKSUM]
    marker.write_text(json.dumps(content))


WEIGHTS = f"{STATE}/weights.pt"
DAMAGES: dict[str, Callable[[Path], Any]] = {
    "missing": lambda folder: (folder / WEIGHTS).unlink(),
    "short": lambda folder: (folder / WEIGHTS).write_bytes(b"weights"),
    "flipped": lambda folder: (folder / WEIGHTS).write_bytes(b"W" + (folder / WEIGHTS).read_bytes()[1:]),
    "a folder": lambda folder: replace_by_folder(folder / WEIGHTS),
    "EIO": lambda folder: make_read_fail(folder / WEIGHTS),
    "a dangling link": lambda folder: ((folder / WEIGHTS).unlink(), (folder / WEIGHTS).symlink_to("nowhere")),
    "marker not JSON": lambda folder: (folder / MARKER).write_text("{"),
    "marker empty": lambda folder: (folder / MARKER).write_text(""),
    "marker not text": lambda folder: (folder / MARKER).write_bytes(b"\xff\xfe"),
    "marker a list": lambda folder: (folder / MARKER).write_text("[]"),
    "marker a folder": lambda folder: replace_by_folder(folder / MARKER),
    "marker a dangling link": lambda folder: ((folder / MARKER).unlink(), (folder / MARKER).symlink_to("nowhere")),
    "position changed": lambda folder: edit_marker(folder, position=24),
    "files forgotten": lambda folder: edit_marker(folder, files=[]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_loudly(tmp_path: Path, damage: str) -> None:
    good, bad = put(tmp_path, 1), put(tmp_path, 2)
    DAMAGES[damage](bad)
    messages: list[str] = []
    latest = latest_complete(tmp_path, messages.append)
    assert latest is not None
    assert latest[0] == good
    assert len(messages) == 1
    assert "step-00000002" in messages[0]


def test_checkpoints_without_permission_are_passed_over(tmp_path: Path, as_user: Callable[[str], str]) -> None:
    put(tmp_path, 1)
    for step, part in ((2, WEIGHTS), (3, MARKER), (4, ".")):
        (put(tmp_path, step) / part).chmod(0)
    code = (
        "from pathlib import Path; from pokevla.runs.verification import latest_complete\n"
        f"print(latest_complete(Path({str(tmp_path)!r}), print)[0].name)"
    )
    *warnings, found = as_user(code).splitlines()
    assert ["Permission denied" in text for text in warnings] == [True, True, True]
    assert found == "step-00000001"


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(tmp_path: Path) -> None:
    (put(tmp_path, 1) / STATE / "weights.pt").unlink()
    with pytest.raises(CheckpointError, match="All 1 checkpoints"):
        latest_complete(tmp_path)


def test_every_flipped_byte_of_the_marker_is_found_or_changes_nothing(tmp_path: Path) -> None:
    folder = put(tmp_path, 5)
    assert_no_flip_is_used_silently(folder / MARKER, lambda: read_info(folder))


def test_a_marker_of_before_checksums_is_still_read_and_its_position_compared(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    folder = put(tmp_path, 5)
    content = json.loads((folder / MARKER).read_text())
    del content[CHECKSUM]
    (folder / MARKER).write_text(json.dumps(content))
    assert verify(folder).position == 40
    (folder / MARKER).write_text(json.dumps({**content, "position": 48}))
    with pytest.raises(CheckpointError, match="position 48; after 5 steps it is 40"):
        verify(folder)
    (folder / MARKER).write_text(json.dumps({**content, "step": 6, "position": 48}))
    with pytest.raises(CheckpointError, match="describes step 6"):
        verify(folder)


def test_all_damages_are_told(tmp_path: Path) -> None:
    folder = put(tmp_path, 5)
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("global: 8", "global: 16"))
    info = read_info(folder)
    (folder / WEIGHTS).unlink()
    assert [("position" in text, "missing" in text) for text in damages(folder, info)] == [(True, False), (False, True)]
    assert [step for step, _ in list_checkpoints(tmp_path)] == [5]
