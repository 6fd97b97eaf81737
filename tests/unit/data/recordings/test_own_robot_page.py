"""What docs/own_robot.md shows is run here as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.recorded.episodes import record
from pokevla.data.dataset import open_dataset
from pokevla.data.recordings.faults import REFUSED, WARNED
from pokevla.data.recordings.hdf5.maps import read_map

ROOT = Path(__file__).resolve().parents[4]
PAGE = (ROOT / "docs/own_robot.md").read_text()


def test_the_writer_of_thirty_lines_converts_recordings(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(# my_recordings.py\n.*?)```", PAGE, flags=re.DOTALL)
    body = code.split("FILES = ")[1]
    assert len(body.splitlines()) < 32
    (tmp_path / "my_recordings.py").write_text(code)
    (tmp_path / "recordings").mkdir()
    for number in range(5):
        e = record(number, 20)
        images = {camera: np.stack(e.pictures[camera]) for camera in ("front", "wrist")}
        np.savez(
            tmp_path / f"recordings/{number}.npz", task=e.task, action=e.action, state=e.state, time=e.times, **images
        )
    command = [sys.executable, "my_recordings.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    dataset = open_dataset(tmp_path / "my_dataset")
    assert dataset.embodiment is not None
    assert (dataset.embodiment.name, dataset.samples.num_rows) == ("my-arm", 100)
    assert dataset.episodes is not None
    assert dataset.episodes["split"].to_pylist() == ["train"] * 4 + ["val"]


def test_the_map_of_the_page_is_valid(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(# map.yaml\n.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "map.yaml").write_text(text)
    robot = read_map(str(tmp_path / "map.yaml")).embodiment()
    assert (robot.views, robot.proprio_width, robot.action_width) == (("base", "wrist"), 8, 8)


def test_the_page_explains_every_code() -> None:
    rows = re.findall(r"^\| (`.*?) \| ", PAGE, flags=re.MULTILINE)
    codes = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row)}
    assert codes >= REFUSED.keys() | WARNED.keys()
