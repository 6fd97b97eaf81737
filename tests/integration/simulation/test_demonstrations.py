"""The expert solves a task, and its demonstrations are the same for any number of workers."""

from __future__ import annotations

import importlib
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from pokevla.errors import SimulationError
from pokevla.simulation.environment import LiberoEnvironment
from pokevla.simulation.expert.scripted import ScriptedExpert
from pokevla.simulation.recordings import demonstrations
from pokevla.simulation.recordings.demonstrations import DemoSettings, collect_demonstrations
from pokevla.simulation.recordings.scenes import collect_scenes
from pokevla.simulation.suites import get_task

pytestmark = pytest.mark.simulator


def test_the_expert_refuses_what_it_cannot_do() -> None:
    with pytest.raises(SimulationError, match="cannot do libero_goal task 0"):
        ScriptedExpert(LiberoEnvironment("libero_goal", 0))


def test_the_expert_goes_through_its_phases_once_and_comes_down_smoothly() -> None:
    """A pupil cannot follow one that goes to and fro, or starts down all at once, at thresholds it cannot see."""
    env = LiberoEnvironment("libero_object", 3, fast_rendering=True)
    shift = env.sample_target_shift(2, np.random.default_rng(0), 0.03, 0.05)
    env.reset(2, target_shift=shift)
    expert = ScriptedExpert(env)
    phases: list[str] = []
    vertical: list[float] = []
    for _ in range(120):
        action = expert.act()
        if expert.phase in ("hover", "descend"):
            vertical.append(action[2])
        if not phases or phases[-1] != expert.phase:
            phases.append(expert.phase)
        env.step(action)
    assert phases == ["hover", "descend", "close", "lift", "move", "release", "done"]
    assert np.abs(np.diff(vertical)).max() < 0.5, "0.27 to 0.36 with the funnel, 0.55 to 0.64 with a threshold"


def test_demonstrations_have_the_layout_and_do_not_depend_on_workers(tmp_path: Path) -> None:
    settings = DemoSettings(
        "libero_object",
        3,
        2,
        tmp_path / "one",
        image_size=32,
        image_stride=5,
        dart_sigma=0.1,
        random_start_steps=4,
        target_shift_m=(0.0, 0.05),
        val_fraction=0.5,
        workers=1,
        fast_rendering=True,
    )
    seen: list[tuple[int, int, int]] = []
    one = collect_demonstrations(settings, lambda *counts: seen.append(counts))
    two = collect_demonstrations(replace(settings, out=tmp_path / "two", workers=2))

    assert (one.kept, one.requested, seen[-1]) == (2, 2, (2, one.failed, 2))
    assert one.path == tmp_path / "one" / "libero_object" / f"{get_task('libero_object', 3).name}_demo.hdf5"
    with h5py.File(one.path) as first, h5py.File(two.path) as second:
        names: list[str] = []
        first.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in names:
            np.testing.assert_array_equal(first[name][()], second[name][()], err_msg=name)
        _check_layout(first)


def _check_layout(file: h5py.File) -> None:
    data = file["data"]
    assert data.attrs["pokevla_obs_alignment"] == "before"
    assert json.loads(data.attrs["problem_info"])["language_instruction"].startswith("pick up the bbq sauce")
    instances = json.loads(data.attrs["instances"])
    assert json.loads(data.attrs["target_instances"]) == ["bbq_sauce_1", "basket_1"]
    assert json.loads(data.attrs["pokevla_collection"])["dart_sigma"] == 0.1
    assert [data[f"demo_{index}"].attrs["split"] for index in range(2)] == ["train", "val"]
    demo = data["demo_0"]
    steps = int(demo.attrs["num_samples"])
    shapes = {
        "actions": (7,),
        "executed_actions": (7,),
        "robot_states": (9,),
        "rewards": (),
        "obs/agentview_rgb": (32, 32, 3),
        "obs/eye_in_hand_mask": (32, 32),
        "obs/ee_states": (6,),
        "obs/joint_states": (7,),
        "obs/gripper_states": (2,),
    }
    for name, shape in shapes.items():
        assert demo[name].shape == (steps, *shape), name
    done = demo["actions"][-4:]
    assert (done[:, 2] > 0).all(), "after success: straight up"
    assert not done[:, [0, 1, 3, 4, 5]].any(), "and nothing else"
    assert (done[:, 6] == -1).all()
    rendered = demo["obs/rendered"][()]
    np.testing.assert_array_equal(np.flatnonzero(rendered), np.arange(0, steps, 5))
    assert demo["obs/agentview_rgb"][0].any()
    assert not demo["obs/agentview_rgb"][1].any()
    assert demo["obs/agentview_rgb"].id.get_num_chunks() == rendered.sum(), "what was not drawn takes no room"
    assert instances.index("bbq_sauce_1") + 1 in demo["obs/agentview_mask"][0]
    assert int(demo["dones"][-1]) == 1
    assert 0 < np.abs(demo["actions"][()] - demo["executed_actions"][()]).max() < 1
    np.testing.assert_array_equal(demo["actions"][:, 6], demo["executed_actions"][:, 6])


@pytest.fixture
def toy_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collect attempts of ToyAttempts, in real worker processes."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))  # the workers get our path
    attempts = importlib.import_module("toy_attempts").ToyAttempts
    monkeypatch.setattr(demonstrations, "Attempts", attempts)


def test_failed_attempts_are_counted_and_not_kept(tmp_path: Path, toy_attempts: None) -> None:
    settings = DemoSettings("libero_object", 3, 4, tmp_path, image_size=16, image_stride=5, val_fraction=0.25)
    seen: list[tuple[int, int, int]] = []
    report = collect_demonstrations(settings, lambda *counts: seen.append(counts))
    assert (report.kept, report.failed, report.steps) == (4, 2, [12] * 4)
    assert report.cpu_s == {"physics": 6.0}
    assert seen == [(1, 0, 4), (1, 1, 4), (2, 1, 4), (3, 1, 4), (3, 2, 4), (4, 2, 4)]
    with h5py.File(report.path) as file:
        data = file["data"]
        assert json.loads(data.attrs["pokevla_collection"])["failed_episodes"] == 2
        assert (data.attrs["num_demos"], data.attrs["total"]) == (4, 48)
        demos = [data[f"demo_{index}"] for index in range(4)]
        assert [demo.attrs["init_state_index"] for demo in demos] == [0, 2, 3, 5]
        assert [demo.attrs["split"] for demo in demos] == ["train", "train", "train", "val"]
        pictures = demos[1]["obs/agentview_rgb"]
        assert pictures.id.get_num_chunks() == 3, "what was not drawn takes no room"
        assert [int(picture.max()) for picture in pictures] == [2, 0, 0, 0, 0] * 2 + [2, 0]


@pytest.mark.parametrize("stop_after", [1, 3, 6])
def test_recording_that_was_stopped_goes_on_and_ends_with_the_same_file(
    tmp_path: Path, toy_attempts: None, stop_after: int
) -> None:
    settings = DemoSettings("libero_object", 3, 4, tmp_path / "stopped", image_size=16, image_stride=5)

    def stop(kept: int, failed: int, requested: int) -> None:
        if kept + failed == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect_demonstrations(settings, stop)
    attempts = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.npz"))]
    assert len(attempts) == stop_after
    stopped = collect_demonstrations(settings)
    whole = collect_demonstrations(replace(settings, out=tmp_path / "whole"))
    assert stopped.path.read_bytes() == whole.path.read_bytes()
    assert (stopped.failed, stopped.steps, stopped.cpu_s) == (whole.failed, whole.steps, whole.cpu_s)
    assert [path.name for path in stopped.path.parent.iterdir()] == [stopped.path.name]


def test_when_attempts_run_out_what_succeeded_is_kept(tmp_path: Path, toy_attempts: None) -> None:
    settings = DemoSettings("libero_object", 3, 4, tmp_path, image_size=16, max_attempts=3)
    report = collect_demonstrations(settings)
    assert (report.kept, report.failed, report.requested) == (2, 1, 4)


def test_when_every_attempt_fails_it_is_an_error_and_no_file(tmp_path: Path, toy_attempts: None) -> None:
    settings = DemoSettings("libero_object", 3, 2, tmp_path, image_size=16, max_attempts=3, seed=13)
    with pytest.raises(SimulationError, match="failed in all 3 attempts at libero_object task 3"):
        collect_demonstrations(settings)
    assert list(tmp_path.rglob("*.*")) == []


def test_memory_does_not_grow_with_the_number_of_episodes(tmp_path: Path, toy_attempts: None) -> None:
    settings = DemoSettings("libero_object", 3, 24, tmp_path, image_size=256, image_stride=3)
    episode_bytes = 4 * 256 * 256 * 3
    tracemalloc.start()
    try:
        collect_demonstrations(settings)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 9 * episode_bytes, "two waiting for each of two workers, and copies on their way"


def test_scenes_hold_pictures_masks_and_names(tmp_path: Path) -> None:
    path = collect_scenes("libero_object", (3,), 3, tmp_path, 0, 32, 1, True, init_states=(10, 12))
    with h5py.File(path) as file:
        assert file["images"].shape == (3, 2, 32, 32, 3)
        assert file["masks"].shape == (3, 2, 32, 32)
        names = json.loads(file.attrs["instances/3"])
        assert "bbq_sauce_1" in names
        assert all(10 <= state < 12 for state in file["init_state_index"])
        assert all(0 < mask.max() <= len(names) for mask in file["masks"][:, 0])
        assert not np.array_equal(file["masks"][0], file["masks"][1])
        assert list(file["scene_task"][()]) == [3, 3, 3]
