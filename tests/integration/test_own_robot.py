"""docs/own_robot.md as a whole: LeRobot recordings of an arm with eight joints, to a policy that moves it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.recorded.episodes import record
from benchmarks.recorded.lerobot import write_lerobot_v21
from pokevla.cli.main import run
from pokevla.policy.policy import Policy

WORDS = [
    "--camera", "base=observation.images.front", "--camera", "wrist=observation.images.wrist",
    "--state", "joints=observation.state[0:7]@rad", "--state", "gripper=observation.state[7:8]",
    "--action", "joints=action[0:7]@rad", "--action", "gripper=action[7:8]",
    "--gripper", "gripper.pos=1,0", "--val-fraction", "0.25", "--image-size", "64", "--workers", "0",
]  # fmt: skip


def test_recordings_become_a_policy(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_lerobot_v21(tmp_path / "recordings", [record(number, 30) for number in range(4)])
    assert run(["data", "convert", "lerobot", "recordings", "cubes", *WORDS]) == 0
    for command in (["show", "cubes", "0", "--image", "sheet.png"], ["stats", "cubes"], ["verify", "cubes"]):
        assert run(["data", *command]) == 0
    page = (repository / "docs/own_robot.md").read_text()
    (recipe,) = re.findall(r"```yaml\n(# try.yaml\n.*?)```", page, flags=re.DOTALL)
    Path("try.yaml").write_text(recipe.replace("steps: 20", "steps: 2"))
    assert run(["validate", "try.yaml"]) == 0
    done = subprocess.run(
        [sys.executable, "-m", "pokevla.cli.main", "train", "try.yaml"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(repository), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    judge = ["eval", "openloop", "runs/cubes", "cubes", "--out", "runs/cubes-openloop"]
    assert run(judge) == 0
    assert Path("runs/cubes-openloop/summary.json").is_file()
    assert list(Path("runs/cubes-openloop/plots").glob("*.png"))
    assert run(["data", "export", "lerobot", "cubes", "exported/cubes"]) == 0
    policy = Policy.from_pretrained(Path("runs/cubes"))
    images = np.zeros((1, 2, 48, 64, 3), np.uint8)
    actions = policy.act(images, np.zeros((1, 8), np.float32), ["Pick up the cube"])
    assert actions.shape == (1, 8, 8)
    assert set(np.unique(actions[..., 7])) <= {0.0, 1.0}
    assert "4 episodes, 120 samples" in capsys.readouterr().out
