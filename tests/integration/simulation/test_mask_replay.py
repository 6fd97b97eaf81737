"""Published demonstrations get the masks that the collector would have stored for the same states."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pokevla.cli.main import run
from pokevla.data.dataset import open_dataset
from pokevla.data.sources.libero import LiberoSettings, convert_libero
from pokevla.errors import DataError, SimulationError, UsageError
from pokevla.files.foreign.hdf5 import hdf5_reader
from pokevla.simulation.environment import LiberoEnvironment
from pokevla.simulation.recordings.demonstrations import DemoSettings, collect_demonstrations
from pokevla.simulation.recordings.mask_files import add_masks
from pokevla.simulation.recordings.mask_replay import replay_episode
from pokevla.simulation.recordings.stored_episodes import DemoSource, open_episode
from pokevla.simulation.stored_models import stored_poses

pytestmark = pytest.mark.simulator

SUITE, TASK = "libero_spatial", 0  # with a cabinet and a stove, whose poses states do not hold
STRIDE = 4
PUBLISHED_ATTRIBUTES = (
    "env_name", "problem_info", "macros_image_convention", "bddl_file_name", "bddl_file_content", "env_args",
    "num_demos",
)  # fmt: skip


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One demonstration with pictures and masks in default rendering, every fourth row drawn."""
    folder = tmp_path_factory.mktemp("ours")
    settings = DemoSettings(SUITE, TASK, 1, folder, image_size=64, image_stride=STRIDE, workers=1)
    return collect_demonstrations(settings).path


def publish(ours: Path, path: Path) -> Path:
    """The drawn rows of `ours` in the published layout: observations after the action, no masks, none of our keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(ours) as source, h5py.File(path, "w") as target:
        stored: Any = source["data"]
        data = target.create_group("data")
        for name in PUBLISHED_ATTRIBUTES:
            data.attrs[name] = stored.attrs[name]
        for name in stored:
            demo, published = stored[name], data.create_group(name)
            rows = np.flatnonzero(demo["obs/rendered"][()])
            for key in ("actions", "states", "robot_states", "rewards", "dones"):
                published[key] = demo[key][()][rows][:-1]
            for key in demo["obs"]:
                if key != "rendered" and not key.endswith("_mask"):
                    published[f"obs/{key}"] = demo[f"obs/{key}"][()][rows][1:]
            published.attrs["num_samples"] = len(rows) - 1
            for key in ("model_file", "init_state"):
                published.attrs[key] = demo.attrs[key]
        data.attrs["total"] = sum(data[name].attrs["num_samples"] for name in data)
    return path


def source_of(path: Path, target: Path, *, before: bool = False) -> DemoSource:
    return DemoSource(path, target, SUITE, TASK, ("demo_0",), before)


@pytest.fixture(scope="module")
def published(ours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(ours, tmp_path_factory.mktemp("published") / SUITE / ours.name)


@pytest.fixture
def damaged(published: Path, tmp_path: Path) -> Path:
    """A copy of the published file, to be damaged."""
    path = tmp_path / "damaged" / SUITE / published.name
    path.parent.mkdir(parents=True)
    path.write_bytes(published.read_bytes())
    return path


def roll_states(path: Path) -> None:
    """States of half an episode away."""
    with h5py.File(path, "a") as file:
        states: Any = file["data/demo_0/states"]
        states[...] = np.roll(states[()], len(states) // 2, axis=0)


def test_masks_equal_those_of_the_collector_and_a_misfit_leaves_nothing(
    ours: Path, published: Path, damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    roll_states(damaged)
    done, refused = tmp_path / "out" / SUITE / published.name, tmp_path / "refused" / "bad.hdf5"
    seen: list[tuple[int, int, int]] = []

    with pytest.raises(DataError, match=f"{damaged}: data/demo_0: its joints are .* 1 of 1 episodes"):
        add_masks([source_of(published, done), source_of(damaged, refused)], 1,
                  on_progress=lambda *counts: seen.append(counts))  # fmt: skip

    assert seen == [(1, 0, 2), (2, 1, 2)]
    assert list(refused.parent.iterdir()) == []
    assert [path.name for path in done.parent.iterdir()] == [published.name]
    _check_masks(ours, published, done)
    # The same command goes on where the first ended, here: has nothing to do.
    assert run(["data", "masks", str(published), str(tmp_path / "out")]) == 0
    assert "1 episodes with masks, 0 left out, already done" in capsys.readouterr().out
    # And what came out is what post-training needs.
    dataset = open_dataset(convert_libero(LiberoSettings(done, tmp_path / "dataset", noops="keep")))
    assert dataset.has_masks


def _check_masks(ours: Path, published: Path, done: Path) -> None:
    with h5py.File(ours) as first, h5py.File(published) as source, h5py.File(done) as second:
        for key in ("instances", "target_instances"):
            assert second["data"].attrs[key] == first["data"].attrs[key]
        assert "pokevla_obs_alignment" not in second["data"].attrs
        fit = json.loads(second["data"].attrs["pokevla_masks"])["fit"]["demo_0"]
        assert fit["picture_difference"] == 0.0
        assert fit["joint_error_rad"] == 0.0
        names: list[str] = []
        source.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in names:
            np.testing.assert_array_equal(second[name][()], source[name][()], err_msg=name)
        assert second["data/demo_0"].attrs["model_file"] == source["data/demo_0"].attrs["model_file"]
        for camera in ("agentview", "eye_in_hand"):
            key = f"data/demo_0/obs/{camera}_mask"
            truth, drawn = first[key][::STRIDE][1:], second[key][()]
            np.testing.assert_array_equal(drawn[:-1], truth[:-1], err_msg=camera)
            assert drawn[:-1].any(axis=(1, 2)).all()
            # The last picture is one control step past the last state; the collector's next one is some steps on.
            if camera == "agentview":
                assert (drawn[-1] != truth[-1]).mean() < 0.02


def test_pictures_and_masks_of_another_size_are_those_of_the_same_states(
    env: LiberoEnvironment, published: Path, tmp_path: Path
) -> None:
    """Whatever size was stored: the pictures are checked at that size, and drawn at the new one."""
    small = tmp_path / SUITE / published.name
    small.parent.mkdir()
    with h5py.File(published) as source, h5py.File(small, "w") as target:
        source.copy("data", target)
        demo: Any = target["data/demo_0"]
        for key in ("actions", "states", "robot_states", "rewards", "dones", *(f"obs/{name}" for name in demo["obs"])):
            rows = demo[key][-4:]
            if key.endswith("_rgb"):
                rows = rows.reshape(4, 32, 2, 32, 2, 3).mean(axis=(2, 4)).round().astype(np.uint8)
            del demo[key]
            demo[key] = rows
    out = tmp_path / "out"
    command = ["data", "masks", str(small), str(out), "--image-size", "64", "--workers", "1"]
    assert run(command) == 3, "four rows do not tell the alignment"
    assert run([*command, "--alignment", "after"]) == 0
    with h5py.File(published) as source, h5py.File(out / SUITE / small.name) as drawn:
        demo, before = drawn["data/demo_0"], source["data/demo_0"]
        for camera in ("agentview", "eye_in_hand"):
            pictures = demo[f"obs/{camera}_rgb"][()]
            np.testing.assert_array_equal(pictures[:-1], before[f"obs/{camera}_rgb"][-4:-1])  # type: ignore[index]
            assert demo[f"obs/{camera}_mask"].shape == pictures.shape[:3]
        env.place_fixtures(stored_poses(demo.attrs["model_file"]))
        env.set_state(demo["states"][1])
        np.testing.assert_array_equal(demo["obs/agentview_mask"][0], env.stored_masks()[0])
        made = json.loads(drawn["data"].attrs["pokevla_masks"])  # type: ignore[arg-type]
    assert (made["image_size"], made["fast_rendering"]) == (64, False)
    with pytest.raises(UsageError, match="was made with image_size 64, not None"):
        add_masks([source_of(small, out / SUITE / small.name)], 1)
    settings = LiberoSettings(out, tmp_path / "dataset", noops="keep", alignment="after")
    dataset = open_dataset(convert_libero(settings))
    assert dataset.info["recorded"]["image_size"] == [64]


@pytest.fixture(scope="module")
def env() -> LiberoEnvironment:
    """The simulation that the tests below replay into."""
    return LiberoEnvironment(SUITE, TASK, image_size=64)


def complaint(env: LiberoEnvironment, source: DemoSource) -> str:
    with hdf5_reader() as reader:
        masks = replay_episode(env, open_episode(source, "demo_0", reader))
    assert not masks.unpack().any(), "nothing is drawn that would not be used"
    text = masks.fit.complaint()
    assert text is not None
    return text


def test_pictures_before_the_action_are_not_taken_for_published_ones(env: LiberoEnvironment, published: Path) -> None:
    assert "another alignment" in complaint(env, source_of(published, published, before=True))


def test_fixtures_stand_where_the_stored_model_has_them(env: LiberoEnvironment, damaged: Path) -> None:
    """LIBERO draws their poses at every creation; a cabinet from another draw would be a mask in the wrong place."""
    with h5py.File(damaged, "a") as file:
        attributes = file["data/demo_0"].attrs
        model = ElementTree.fromstring(attributes["model_file"])
        cabinet = model.find("worldbody/body[@name='wooden_cabinet_1_main']")
        assert cabinet is not None
        x, y, z = (float(word) for word in cabinet.get("pos", "").split())
        cabinet.set("pos", f"{x + 0.3} {y} {z}")
        attributes["model_file"] = ElementTree.tostring(model, encoding="unicode")
    assert "grey levels" in complaint(env, source_of(damaged, damaged))


def test_states_of_another_model_are_refused_before_anything_is_drawn(damaged: Path, tmp_path: Path) -> None:
    with h5py.File(damaged, "a") as file:
        states = file["data/demo_0/states"][()]
        del file["data/demo_0/states"]
        file["data/demo_0/states"] = states[:, :-2]
    assert run(["data", "masks", str(damaged.parent), str(tmp_path / "out")]) == 3
    assert not (tmp_path / "out").exists()


def test_files_with_masks_sources_and_foreign_targets_are_refused(ours: Path, published: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="demo_0 already has masks"):
        add_masks([source_of(ours, tmp_path / "x.hdf5", before=True)], 1)
    with pytest.raises(UsageError, match="is a source itself"):
        add_masks([source_of(published, published)], 1)
    (tmp_path / "x.hdf5").write_text("something else")
    with pytest.raises(UsageError, match="exists and was not made from this"):
        add_masks([source_of(published, tmp_path / "x.hdf5")], 1)


def test_a_step_goes_on_from_a_state_that_was_set(env: LiberoEnvironment, ours: Path) -> None:
    """As the last row of a published file needs it: arm and fingers land where the demonstration had them."""
    with h5py.File(ours) as file:
        demo: Any = file["data/demo_0"]
        states, actions, joints = demo["states"][()], demo["executed_actions"][()], demo["obs/joint_states"][()]
        fingers = demo["obs/gripper_states"][()]
        env.place_fixtures(stored_poses(demo.attrs["model_file"]))
    for row in range(2, len(states) - 1, 5):
        env.set_state(states[row], actions[:row])
        env.step(actions[row])
        np.testing.assert_allclose(env.joint_positions(), joints[row + 1], atol=5e-3)
        np.testing.assert_allclose(env.robot_pose()[2], fingers[row + 1], atol=2e-3)
    with pytest.raises(SimulationError, match="numbers, this one has shape"):
        env.set_state(states[0][:-1])
    with pytest.raises(SimulationError, match="no body"):
        env.place_fixtures(stored_poses("<mujoco><worldbody/></mujoco>"))
