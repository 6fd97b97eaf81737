"""What docs/own_robot.md shows is run here as it stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from benchmarks.recorded.episodes import record
from benchmarks.recorded.hdf5 import write_aloha, write_robomimic
from benchmarks.recorded.lerobot import write_lerobot_v21
from benchmarks.recorded.rlds import write_rlds, write_rlds_arm
from pokevla.cli.main import run
from pokevla.data.dataset import open_dataset
from pokevla.data.recordings.faults import REFUSED, WARNED
from pokevla.data.recordings.hdf5.maps import read_map

ROOT = Path(__file__).resolve().parents[4]
PAGE = (ROOT / "docs/own_robot.md").read_text()


def test_the_writer_of_thirty_lines_converts_recordings(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(# my_recordings.py\n.*?)```", PAGE, flags=re.DOTALL)
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 30  # imports included
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


def write_all(folder: Path) -> None:
    """Everything that the commands of the page convert."""
    episodes = [record(number, 12) for number in range(4)]
    recordings = folder / "recordings"
    write_lerobot_v21(recordings / "cubes", episodes)
    write_rlds(folder / "modified_libero_rlds/libero_spatial_no_noops", episodes)
    write_rlds_arm(recordings / "bridge", episodes, names=("image_0", "image_1", "image_2"))
    for e in episodes:
        write_aloha(recordings / f"aloha/episode_{e.number}.hdf5", e, compressed=True)
    write_robomimic(recordings / "image_v15.hdf5", episodes)
    (text,) = re.findall(r"```yaml\n(# map.yaml\n.*?)```", PAGE, flags=re.DOTALL)
    (folder / "map.yaml").write_text(text)
    (recordings / "mine").mkdir()
    with h5py.File(recordings / "mine/today.hdf5", "w") as file:
        for e in episodes:
            group = file.create_group(f"data/run_{e.number}")
            group.attrs["language"] = e.task
            group["obs/front_rgb"] = np.stack(e.pictures["front"])
            group["obs/wrist_rgb"] = np.stack(e.pictures["wrist"])[:, ::-1, ::-1, ::-1]
            group["obs/joint_positions"], group["obs/gripper"] = e.state[:, :7], e.state[:, 7:]
            group["actions"], group["obs/time"] = e.action, e.times
        file["mask/valid"] = np.array(["run_3"], "S8")


def commands() -> list[list[str]]:
    """Words of every command of the page."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    environment = {"$POKEVLA_DATA": "data", "$SLURM_ARRAY_TASK_ID": "3"}
    for name, value in environment.items():
        lines = [line.replace(name, value) for line in lines]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_every_command_of_the_page_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but training and what comes after it (tests/integration/test_own_robot.py)."""
    monkeypatch.chdir(tmp_path)
    write_all(tmp_path)
    done = [words for words in commands() if words[0] == "data"]
    for words in done:
        small = ["--image-size", "32", "--workers", "0"] if words[1] == "convert" else []
        assert run([*words, *small]) == 0, (words, capsys.readouterr().err)
    made = {path.name: open_dataset(path) for path in Path("data").glob("[!.]*")}
    counts = {name: (dataset.info["num_episodes"], dataset.samples.num_rows) for name, dataset in made.items()}
    names = {"cubes", "libero_spatial_rlds", "bridge", "aloha", "lift", "mine"}
    assert counts == dict.fromkeys(names, (4, 48))
    assert made["mine"].episodes is not None
    assert made["mine"].episodes["split"].to_pylist() == ["train"] * 3 + ["val"]
    assert (tmp_path / "sheet.png").is_file()
    assert (tmp_path / "exported/cubes/meta/info.json").is_file()


def test_the_map_of_the_page_is_valid(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(# map.yaml\n.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "map.yaml").write_text(text)
    robot = read_map(str(tmp_path / "map.yaml")).embodiment()
    assert (robot.views, robot.proprio_width, robot.action_width) == (("base", "wrist"), 8, 8)


def test_the_page_explains_every_code() -> None:
    rows = re.findall(r"^\| (`.*?) \| ", PAGE, flags=re.MULTILINE)
    codes = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row)}
    assert codes >= REFUSED.keys() | WARNED.keys()
