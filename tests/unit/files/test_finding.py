from __future__ import annotations

import os
from pathlib import Path

import pytest

from pokevla.errors import DataError
from pokevla.files.finding import find_files


def write(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_links_to_folders_are_followed_wherever_they_lead(tmp_path: Path) -> None:
    write(tmp_path / "src/object/a.hdf5", tmp_path / "elsewhere/goal/b.hdf5", tmp_path / "elsewhere/goal/deep/c.hdf5")
    (tmp_path / "src/goal").symlink_to(tmp_path / "elsewhere/goal")
    found = find_files(tmp_path / "src", ".hdf5")
    names = ["goal/b.hdf5", "goal/deep/c.hdf5", "object/a.hdf5"]
    assert found.files == [tmp_path / "src" / name for name in names]
    assert found.notes() == []


def test_a_folder_of_nothing_but_links_is_not_empty(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere/a.hdf5")
    (tmp_path / "src").mkdir()
    (tmp_path / "src/goal").symlink_to("../elsewhere")
    assert find_files(tmp_path / "src", ".hdf5").files == [tmp_path / "src/goal/a.hdf5"]


def test_a_loop_of_links_ends_and_no_folder_is_read_twice(tmp_path: Path) -> None:
    write(tmp_path / "src/object/a.hdf5")
    (tmp_path / "src/again").symlink_to("object")
    (tmp_path / "src/object/up").symlink_to("..")
    found = find_files(tmp_path / "src", ".hdf5")
    assert found.files == [tmp_path / "src/object/a.hdf5"]  # under its own name, though `again` comes first
    assert found.notes() == [f"passed over 2 links to folders that are read anyway (such as {tmp_path / 'src/again'})"]


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    names = ("a.hdf5", "b.h5", "README", ".tmp-c.hdf5/c.hdf5", "d.h5")
    write(*(tmp_path / name for name in names))
    found = find_files(tmp_path, ".hdf5")
    assert found.files == [tmp_path / "a.hdf5"]
    (note,) = found.notes()
    assert note == "passed over 4 files that are not *.hdf5 (2 .h5, 1 no suffix, 1 unfinished (.tmp-))"
    (tmp_path / "a.hdf5").unlink()
    with pytest.raises(DataError, match=r"no \*\.hdf5 below it, only 4 files .*2 \.h5"):
        find_files(tmp_path, ".hdf5")


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.hdf5")
    for name, target in (("goal", "missing"), ("loop", "loop")):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(DataError, match=f"{name} is a link to the missing {target}"):
            find_files(tmp_path, ".hdf5")
        (tmp_path / name).unlink()


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "object/a.hdf5", tmp_path / "goal/b.hdf5")
    scandir = os.scandir

    def denied(path: Path) -> os.ScandirIterator[str]:  # chmod does not bind root, who runs the tests in a container
        if Path(path).name == "goal":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(DataError, match=r"The folder .*/goal cannot be read \(Permission denied\)"):
        find_files(tmp_path, ".hdf5")


def test_a_file_is_itself_and_nothing_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    assert find_files(tmp_path / "a.h5", ".hdf5").files == [tmp_path / "a.h5"]
    with pytest.raises(DataError, match="none: no such file or folder"):
        find_files(tmp_path / "none", ".hdf5")
