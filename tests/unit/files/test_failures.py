"""What the operating system refuses is named, with a remedy that fits."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from pokevla.errors import CheckpointError, DataError, DiskFullError
from pokevla.files.failures import named_error, naming_errors
from pokevla.files.texts import write_text
from pokevla.files.writing import atomic_file


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_is_named_even_inside_another_error(tmp_path: Path, code: int) -> None:
    try:
        try:
            raise OSError(code, "no room")
        except OSError as inner:
            raise RuntimeError("PytorchStreamWriter failed") from inner
    except RuntimeError as outer:
        error = named_error(outer, tmp_path / "not" / "there" / "x.pt", remedy="Delete the holiday pictures.")
    assert isinstance(error, DiskFullError)
    assert error.message.startswith(f"No room to write {tmp_path / 'not' / 'there' / 'x.pt'} (")
    assert "MiB free there" in error.message
    assert error.remedy == "Delete the holiday pictures."


def test_no_room_is_found_in_the_text_of_hdf5(tmp_path: Path) -> None:
    error = named_error(RuntimeError("Unable to flush (file write failed: errno = 28, error message = '')"), tmp_path)
    assert isinstance(error, DiskFullError)


def test_other_errors_are_not_called_a_full_disk(tmp_path: Path) -> None:
    error = named_error(PermissionError(errno.EACCES, "not yours"), tmp_path / "x", kind=CheckpointError)
    assert type(error) is CheckpointError
    assert "owner" in (error.remedy or "")


def test_the_file_that_the_system_refused_is_named_where_it_is_another_one(tmp_path: Path) -> None:
    reason = r"Cannot write .*/out \(No such file or directory: .*/source\)"
    with pytest.raises(DataError, match=reason), naming_errors(tmp_path / "out"):
        (tmp_path / "source").read_bytes()


def test_a_file_in_the_path_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match="A part of this path is a file"):
        write_text(tmp_path / "taken" / "summary.json", "")


def test_a_missing_folder_is_made_and_one_that_goes_away_is_named(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a", "text")
    assert (tmp_path / "new" / "a").read_text() == "text"
    reason = r"Cannot write .*/a \(No such file or directory\)\. A folder of this path"
    with pytest.raises(DataError, match=reason), atomic_file(tmp_path / "new" / "a"):
        shutil.rmtree(tmp_path / "new")
