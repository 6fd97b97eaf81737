"""One bad folder does not hide the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from monitoring.catalogue import list_runs
from tests.unit.monitoring.run_folders import make_run


def test_a_folder_that_cannot_be_read_does_not_hide_the_other_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "locked", "z"):
        make_run(tmp_path / name)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "group" / "deep").mkdir(parents=True)

    def refuse(path: object) -> None:  # root may read everything: the error is made
        if str(path).endswith(("/locked", "/deep")):
            raise PermissionError(13, "Permission denied", str(path))

    for name in ("scandir", "listdir"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda path, original=original: (refuse(path), original(path))[1])

    rows = {Path(row.run).name: row for row in list_runs(tmp_path, lambda run_dir: None)}

    assert set(rows) == {"a", "deep", "locked", "z"}
    assert [rows[name].state for name in ("a", "deep", "locked", "z")].count("unreadable") == 2
    assert "locked cannot be read (Permission denied)" in rows["locked"].reason
