"""A file has its name only when it is whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from pokevla.errors import DataError
from pokevla.simulation.recordings.hdf5 import new_hdf5

FILL = """
import resource, sys
from pathlib import Path
import numpy as np
from pokevla.errors import DiskFullError
from pokevla.simulation.recordings.hdf5 import new_hdf5
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    with new_hdf5(Path(sys.argv[1]), "made") as file:
        file.create_dataset("x", data=np.zeros(1_000_000))
except DiskFullError as error:
    print("full:", error)
"""


def test_a_full_disk_leaves_no_file_and_says_so(tmp_path: Path, tiny_run_env: dict[str, str]) -> None:
    path = tmp_path / "folder" / "demo.hdf5"
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(path)], env=tiny_run_env, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith(f"full: No room to write {path} ("), done.stderr
    assert list(path.parent.iterdir()) == []


def test_an_interrupted_write_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "demo.hdf5"
    with new_hdf5(path, "made") as file:
        file.create_dataset("x", data=np.arange(3))
        file.attrs["made"] = "yes"
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), new_hdf5(path, "made"):
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["demo.hdf5"]


def test_a_folder_that_is_a_file_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match="Cannot write"), new_hdf5(tmp_path / "taken" / "demo.hdf5", "made"):
        pass


@pytest.mark.parametrize("kind", ["published", "text", "folder"])
def test_only_a_file_of_ours_is_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "pick_up_the_milk_demo.hdf5"
    if kind == "published":
        with h5py.File(path, "w") as file:
            file.create_group("data").attrs["total"] = 3
    elif kind == "text":
        path.write_text("ten years of work")
    else:
        path.mkdir()
    before = None if path.is_dir() else path.read_bytes()
    with (
        pytest.raises(DataError, match="was not written by this command: it is not replaced"),
        new_hdf5(path, "pokevla_collection"),
    ):
        pass
    assert path.is_dir() if before is None else path.read_bytes() == before
