"""Published demonstrations are replayed as OpenVLA-OFT replays them, whoever is killed and however many work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pokevla.cli.main import run
from pokevla.data.dataset import open_dataset
from pokevla.data.sources.libero import LiberoSettings, convert_libero
from pokevla.errors import DataError, SimulationError, UsageError
from pokevla.simulation.recordings.demonstrations import DemoSettings, collect_demonstrations
from pokevla.simulation.recordings.regenerated_files import regenerate
from pokevla.simulation.recordings.regeneration import RegenerationSettings
from pokevla.simulation.recordings.stored_episodes import DemoSource
from pokevla.simulation.recordings.unfinished import unfinished_folder
from pokevla.simulation.stored_models import place_body, stored_poses
from pokevla.simulation.suites import get_task

pytestmark = pytest.mark.simulator

SUITE, TASK, SIZE = "libero_spatial", 0, 32  # with a cabinet and a stove, whose poses states do not hold
DEMOS = ("demo_0", "demo_1", "demo_2", "demo_3")
ARRAYS = ("actions", "states", "robot_states", "rewards", "dones")


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """Every array of a file by its name."""
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the official layout, with short episodes of one demonstration: ends of it, whose goal is reached from
    the first row on, one with two idle actions; and its beginning, which does not reach the goal."""
    folder = tmp_path_factory.mktemp("published")
    settings = DemoSettings(
        SUITE, TASK, 1, folder / "ours", image_size=16, image_stride=1000, masks=False, workers=1, fast_rendering=True
    )
    ours = collect_demonstrations(settings).path
    path = folder / SUITE / ours.name
    path.parent.mkdir()
    with h5py.File(ours) as source, h5py.File(path, "w") as target:
        data: Any = target.create_group("data")
        demo: Any = source["data/demo_0"]
        for name in ("env_name", "problem_info", "bddl_file_name", "env_args"):
            data.attrs[name] = source["data"].attrs[name]
        last = len(demo["actions"]) - 1
        for name, rows in zip(DEMOS, [(last - 5, last), (0, 3), (last - 6, last), (last - 4, last)], strict=True):
            episode, own = data.create_group(name), slice(*rows)
            for key in ARRAYS:
                episode[key] = demo[key][own]
            if name == "demo_2":
                episode["actions"][2:4, :6] = 0.0
            for key in ("joint_states", "gripper_states", "ee_states"):
                episode[f"obs/{key}"] = demo[f"obs/{key}"][rows[0] + 1 : rows[1] + 1]
            for camera in ("agentview", "eye_in_hand"):
                episode[f"obs/{camera}_rgb"] = np.zeros((rows[1] - rows[0], 8, 8, 3), np.uint8)
            episode.attrs["model_file"] = demo.attrs["model_file"]
            episode.attrs["init_state"] = demo["states"][rows[0]]
    return path


def source_of(path: Path, out: Path) -> DemoSource:
    return DemoSource(path, out / SUITE / path.name, SUITE, TASK, DEMOS, False)


@pytest.fixture(scope="module")
def regenerated(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by two processes, in default rendering."""
    out = tmp_path_factory.mktemp("regenerated")
    seen: list[tuple[int, int, int]] = []
    (report,) = regenerate(
        [source_of(published, out)], RegenerationSettings(SIZE), 2, on_progress=lambda *counts: seen.append(counts)
    )
    assert seen == [(1, 0, 4), (2, 1, 4), (3, 1, 4), (4, 1, 4)]
    assert (report.kept, report.rows, report.noops) == (3, 5 + 4 + 4, 2)
    assert report.left_out == {"demo_1": "its replay of 3 actions does not end at the goal"}
    return report.path


def test_the_file_is_complete_and_converts(published: Path, regenerated: Path, tmp_path: Path) -> None:
    assert [path.name for path in regenerated.parent.iterdir()] == [published.name]
    with h5py.File(regenerated) as file:
        data: Any = file["data"]
        assert list(data) == ["demo_0", "demo_2", "demo_3"]
        assert (data.attrs["num_demos"], data.attrs["total"]) == (3, 13)
        assert json.loads(data.attrs["env_args"])["env_kwargs"]["camera_heights"] == SIZE
        made = json.loads(data.attrs["pokevla_regeneration"])
        assert made["left_out"] == {"demo_1": "its replay of 3 actions does not end at the goal"}
        assert (made["image_size"], made["fast_rendering"], made["settle_steps"], made["mujoco"]) == (
            SIZE, False, 10, "3.3.2"
        )  # fmt: skip
        for name in data:
            for camera in ("agentview", "eye_in_hand"):
                assert data[f"{name}/obs/{camera}_mask"].shape == data[f"{name}/obs/{camera}_rgb"].shape[:3]
            assert data[f"{name}/obs/agentview_mask"][()].any(axis=(1, 2)).all()
        assert data["demo_0"].attrs["model_file"].startswith("<mujoco")
        assert data["demo_2/dones"][()].tolist() == [0, 0, 0, 1]
    dataset = open_dataset(convert_libero(LiberoSettings(regenerated, tmp_path / "dataset")))
    assert dataset.has_masks
    assert dataset.samples.num_rows == 13  # every row: idle actions are gone already
    assert dataset.info["recorded"] == {"image_size": [SIZE], "fast_rendering": [False], "instructions": ["task"]}
    assert dataset.info["sources"][0]["alignment"] == "before"


def test_rows_equal_those_of_an_independent_replay_with_liberos_own_wrapper(published: Path, regenerated: Path) -> None:
    """OpenVLA-OFT's loop, written down again from regenerate_libero_dataset.py and get_libero_env."""
    from libero.libero.envs import OffScreenRenderEnv  # after pokevla.simulation has chosen the GL back-end

    task = get_task(SUITE, TASK)
    official = OffScreenRenderEnv(bddl_file_name=str(task.bddl_file), camera_heights=SIZE, camera_widths=SIZE)
    official.seed(0)
    with h5py.File(published) as file, h5py.File(regenerated) as new:
        demo: Any = file["data/demo_2"]
        ours: Any = new["data/demo_2"]
        official.reset()
        for fixture in official.env.fixtures_dict.values():
            pose = stored_poses(demo.attrs["model_file"])[fixture.root_body]
            place_body(official.sim.model._model, fixture.root_body, pose)
        official.set_init_state(demo["states"][0])
        for _ in range(10):
            obs, _, done, _ = official.step([0, 0, 0, 0, 0, 0, -1])
        previous, rows = None, []
        for action in demo["actions"][()]:
            still = np.linalg.norm(action[:-1]) < 1e-4
            if still and (previous is None or action[-1] == previous[-1]):
                continue
            rows.append((action, official.sim.get_state().flatten(), obs))
            obs, _, done, _ = official.step(action.tolist())
            previous = action
        assert done
        assert len(rows) == 4
        for row, (action, state, seen) in enumerate(rows):
            np.testing.assert_array_equal(ours["actions"][row], action)
            np.testing.assert_array_equal(ours["states"][row], state)
            # Their observations are one substep of 2 ms older than the state.
            np.testing.assert_array_equal(ours["obs/joint_states"][row], state[1:8])
            np.testing.assert_allclose(ours["obs/joint_states"][row], seen["robot0_joint_pos"], atol=1e-3)
            np.testing.assert_allclose(ours["obs/gripper_states"][row], seen["robot0_gripper_qpos"], atol=1e-3)
            np.testing.assert_allclose(ours["obs/ee_pos"][row], seen["robot0_eef_pos"], atol=1e-3)
            for camera, key in (("agentview", "agentview_image"), ("eye_in_hand", "robot0_eye_in_hand_image")):
                picture = ours[f"obs/{camera}_rgb"][row].astype(int)
                assert np.abs(picture - seen[key]).mean() < 3.0, (row, camera)
        for row, (_, state, _) in enumerate(rows):
            seen = official.regenerate_obs_from_state(state)  # LIBERO's own view of the very state
            np.testing.assert_allclose(ours["obs/ee_states"][row, :3], seen["robot0_eef_pos"], atol=1e-9)
            np.testing.assert_array_equal(ours["obs/agentview_rgb"][row], seen["agentview_image"])
            np.testing.assert_array_equal(ours["obs/eye_in_hand_rgb"][row], seen["robot0_eye_in_hand_image"])
    official.close()


def test_a_killed_command_goes_on_after_its_last_episode(
    published: Path, regenerated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And one process makes what two have made."""
    command = ["data", "regenerate", str(published), str(tmp_path), "--image-size", str(SIZE), "--workers", "1"]
    parts = unfinished_folder(tmp_path / SUITE / published.name)
    first = parts / "demo_0.part"
    code = "import sys; from pokevla.cli.main import run; sys.exit(run(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", code, *command], start_new_session=True)
    deadline = time.monotonic() + 300
    while not first.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / SUITE / published.name).exists()
    # A damaged episode is made again; a finished one is taken as it is, which a mark in it shows.
    (parts / "demo_3.part").write_bytes(first.read_bytes()[:1000])
    with h5py.File(first, "a") as stored:
        stored["episode"].attrs["mark"] = 1

    assert run(command) == 0
    with h5py.File(tmp_path / SUITE / published.name) as file:
        assert ["mark" in demo.attrs for demo in file["data"].values()] == [True, False, False]  # type: ignore[union-attr]
    text = capsys.readouterr().out
    assert "3 episodes of 4 with 13 rows (2 idle actions dropped), written" in text
    assert "left out demo_1: its replay of 3 actions does not end at the goal" in text
    assert not parts.exists()
    ours, others = arrays_of(tmp_path / SUITE / published.name), arrays_of(regenerated)
    assert list(ours) == list(others)
    for name, values in others.items():
        np.testing.assert_array_equal(ours[name], values, err_msg=name)
    assert run(command) == 0
    assert "13 rows (2 idle actions dropped), already done" in capsys.readouterr().out


def test_what_cannot_be_replayed_is_refused_with_its_name(published: Path, tmp_path: Path) -> None:
    source = source_of(published, tmp_path)
    settings = RegenerationSettings(SIZE, masks=False, fast_rendering=True)
    failing = DemoSource(source.source, source.target, SUITE, TASK, ("demo_1",), False)
    with pytest.raises(SimulationError, match=r"no episode of 1 succeeds .* data/demo_1: its replay of 3 actions"):
        regenerate([failing], settings, 1)
    assert list(source.target.parent.iterdir()) == []
    other_task = DemoSource(source.source, source.target, "libero_object", 0, DEMOS, False)
    with pytest.raises(DataError, match="data/demo_0/states has 92 numbers a row"):
        regenerate([other_task], settings, 1)
    truncated = tmp_path / "truncated" / published.name
    truncated.parent.mkdir()
    truncated.write_bytes(published.read_bytes()[:5000])
    with pytest.raises(DataError, match=f"{truncated}"):
        regenerate([source_of(truncated, tmp_path)], settings, 1)
    ours = published.parents[1] / "ours" / SUITE / published.name
    with pytest.raises(DataError, match="was recorded by `pokevla data demos`"):
        regenerate([DemoSource(ours, source.target, SUITE, TASK, ("demo_0",), True)], settings, 1)


def test_files_of_other_settings_are_not_taken_for_finished(published: Path, regenerated: Path, tmp_path: Path) -> None:
    out = regenerated.parents[1]
    with pytest.raises(UsageError, match="exists and was made with image_size 32, not 64"):
        regenerate([source_of(published, out)], RegenerationSettings(64), 1)
    again = source_of(regenerated, tmp_path)
    with pytest.raises(DataError, match="is already regenerated"):
        regenerate([again], RegenerationSettings(64), 1)
