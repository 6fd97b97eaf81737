"""A checkpoint takes the place of what a resume has passed over, whatever that is."""

from __future__ import annotations

from pathlib import Path

from pokevla.checkpoint.store import begin, finish
from pokevla.files.checksums import measure_file
from pokevla.runs.checkpoints import MARKER, STATE, CheckpointInfo, checkpoint_folder
from pokevla.runs.verification import verify

INFO = CheckpointInfo(7, 56, 1, 2, "fp32", "a", "b")


def save(run_dir: Path) -> Path:
    """A checkpoint of one file, on one rank."""
    folder = begin(run_dir, INFO.step, is_main=True)
    (folder / STATE / "weights.pt").write_bytes(b"weights")
    finish(run_dir, INFO, [measure_file(folder, f"{STATE}/weights.pt")], None, is_main=True)
    return checkpoint_folder(run_dir, INFO.step)


def test_a_folder_in_place_of_the_marker_is_replaced(tmp_path: Path) -> None:
    (checkpoint_folder(tmp_path, INFO.step) / MARKER / "x").mkdir(parents=True)
    assert verify(save(tmp_path)).position == INFO.position
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_what_cannot_be_removed_is_set_aside(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "checkpoints").mkdir()
    checkpoint_folder(tmp_path, INFO.step).symlink_to(elsewhere)
    assert verify(save(tmp_path)).position == INFO.position
    assert elsewhere.is_dir()
    assert (tmp_path / "checkpoints" / "step-00000007.damaged").is_symlink()
