"""Observations are paired with the action that follows them, whatever the attributes of a file say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.cli.main import run
from pokevla.data.dataset import open_dataset
from pokevla.data.sources.alignment import Evidence, weigh
from pokevla.data.sources.libero import LiberoSettings, convert_libero
from pokevla.errors import DataError


def trajectory(seed: int, rows: int) -> np.ndarray:
    """(rows + 1, 92) states of an arm that moves as LIBERO's do: 0.006 to 0.058 rad in a row, either way."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(rows + 1, 92))
    moves = rng.uniform(0.006, 0.058, (rows + 1, 7)) * rng.choice([-1.0, 1.0], 7)
    states[:, 1:8] = np.cumsum(moves, axis=0)
    return states


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(6, 60),
    drift=st.floats(-0.002, 0.002),
    still=st.integers(0, 20),
    first_is_original=st.booleans(),
)
def test_an_arm_that_moves_tells_the_alignment(
    seed: int, rows: int, drift: float, still: int, first_is_original: bool
) -> None:
    """With a replay that drifts, pauses at the end, and OFT's first row, whose state is older than its observation."""
    states = trajectory(seed, rows)
    states = np.concatenate([states, np.repeat(states[-1:], still, axis=0)])
    joints = states[:, 1:8] + drift
    stored = states[:-1].copy()
    if first_is_original:
        stored[0, 1:8] -= 0.3
    assert weigh(stored, joints[:-1]).verdict == "before"
    assert weigh(stored, joints[1:]).verdict == "after"


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(0, 30))
def test_joints_of_another_episode_or_of_an_arm_at_rest_tell_nothing(seed: int, rows: int) -> None:
    states = trajectory(seed, rows)
    assert weigh(states[:-1], states[1:, 1:8] + 1.0).rows == 0
    assert weigh(np.repeat(states[:1], rows, axis=0), np.repeat(states[:1, 1:8], rows, axis=0)).rows == 0


def test_evidence_is_only_clear_if_most_rows_agree() -> None:
    assert Evidence(2, 0).verdict is None
    assert Evidence(3, 0).verdict == "before"
    assert Evidence(3, 1).verdict is None
    assert (Evidence(1, 20) + Evidence(1, 0)).verdict == "after"


def as_regenerated_by_oft(path: Path, *, problem_info: bool) -> Path:
    """What regenerate_libero_dataset.py leaves of an episode: observations before the step, no attributes."""
    with h5py.File(path, "a") as file:
        data: Any = file["data"]
        for name in list(data.attrs):
            if name != "problem_info" or not problem_info:
                del data.attrs[name]
        for demo in data.values():
            for name in list(demo.attrs):
                del demo.attrs[name]
            for key in ("executed_actions", "obs/rendered"):
                demo.pop(key, None)
            for camera in ("agentview", "eye_in_hand"):
                demo.pop(f"obs/{camera}_mask", None)
            demo["states"][0] += 0.2
    return path


@pytest.mark.parametrize("problem_info", [True, False])
def test_files_regenerated_by_oft_are_paired_row_by_row(
    tmp_path: Path, libero_file: Callable[..., Path], problem_info: bool
) -> None:
    source = as_regenerated_by_oft(libero_file(demos=1), problem_info=problem_info)
    dataset = open_dataset(convert_libero(LiberoSettings(source, tmp_path / "out")))
    with h5py.File(source) as file:
        demo: Any = file["data/demo_0"]
        actions, poses = demo["actions"][()], demo["obs/ee_states"][()]
    keep = [t for t in range(20) if t not in (3, 4)]  # the fixture's no-ops
    assert dataset.episodes is not None
    assert np.array_equal(dataset.episodes["actions"][0].as_py(), actions[keep])
    assert np.array(dataset.episodes["proprio"][0].as_py())[:, :6] == pytest.approx(poses[keep], abs=1e-6)
    assert dataset.info["sources"][0]["alignment"] == "before"
    assert dataset.episodes["instruction"].to_pylist() == ["pick up the milk and place it in the basket"]
    assert dataset.episodes["file_instruction"].to_pylist() == (["Pick up the milk"] if problem_info else [None])


def hide_the_arm(path: Path) -> Path:
    with h5py.File(path, "a") as file:
        for demo in file["data"].values():  # type: ignore[union-attr]
            demo["obs/joint_states"][...] = 9.0
    return path


@pytest.mark.parametrize("verb", ["libero", "masks"])
def test_a_file_that_cannot_be_told_is_refused_until_the_user_says_it(
    tmp_path: Path, libero_file: Callable[..., Path], capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    source = hide_the_arm(libero_file(ours=False))
    command = ["data", *(["convert", "libero"] if verb == "libero" else ["masks"]), str(source), str(tmp_path / "out")]
    assert run(command) == 3
    error = capsys.readouterr().err
    assert f"{source}: neither its joints and states nor an attribute tell" in error
    assert "--alignment" in error
    if verb == "libero":
        assert run([*command, "--alignment", "after"]) == 0
        assert open_dataset(tmp_path / "out").info["sources"][0]["alignment"] == "after"
    else:  # further on, because the states of the toy are of no model
        assert run([*command, "--alignment", "after"]) == 3
        assert "states has 92 numbers a row" in capsys.readouterr().err


def test_neither_an_attribute_nor_the_option_overrules_the_joints(
    tmp_path: Path, libero_file: Callable[..., Path]
) -> None:
    source = libero_file(ours=False)
    with pytest.raises(DataError, match=r"--alignment says .* before .*in 54 of 54 rows the joints are those after it"):
        convert_libero(LiberoSettings(source, tmp_path / "out", alignment="before"))
    with h5py.File(source, "a") as file:
        file["data"].attrs["pokevla_obs_alignment"] = "before"
    with pytest.raises(DataError, match="attribute `pokevla_obs_alignment` of data says"):
        convert_libero(LiberoSettings(source, tmp_path / "out"))
    # Who knows the attribute to be wrong says so.
    dataset = open_dataset(convert_libero(LiberoSettings(source, tmp_path / "out", alignment="after")))
    assert dataset.info["num_episodes"] == 3


def test_an_episode_unlike_its_file_is_named(tmp_path: Path, libero_file: Callable[..., Path]) -> None:
    source = libero_file(ours=False, demos=8, frames=40)
    with h5py.File(source, "a") as file:
        demo: Any = file["data/demo_6"]
        demo["obs/joint_states"][...] = demo["states"][:, 1:8]
    with pytest.raises(DataError, match="data/demo_6 was observed before the action of each row, unlike the other"):
        convert_libero(LiberoSettings(source, tmp_path / "out"))
    dataset = open_dataset(convert_libero(LiberoSettings(source, tmp_path / "out", max_skipped=0.2)))
    assert list(dataset.info["skipped"]) == [f"{source.name}: data/demo_6"]


def test_states_that_do_not_belong_to_the_actions_are_named(tmp_path: Path, libero_file: Callable[..., Path]) -> None:
    source = libero_file(ours=False)
    with h5py.File(source, "a") as file:
        demo: Any = file["data/demo_1"]
        states = demo["states"][()]
        del demo["states"]
        demo["states"] = states[:-3]
    with pytest.raises(DataError, match=r"data/demo_1/states has shape \(17, 92\) .* each of the 20 actions"):
        convert_libero(LiberoSettings(source, tmp_path / "out"))


def test_numbers_that_are_not_finite_are_no_evidence() -> None:
    states = trajectory(0, 20)
    joints = states[:-1, 1:8].copy()
    states[5, 1], states[6, 2], joints[9, 0], joints[12, 3] = np.nan, np.inf, -np.inf, 1e308
    evidence = weigh(states[:-1], joints)
    assert evidence.verdict == "before"
    assert evidence.rows < 18


def test_a_file_of_which_nothing_can_be_read_says_why(tmp_path: Path, libero_file: Callable[..., Path]) -> None:
    source = libero_file(ours=False, demos=1)
    with h5py.File(source, "a") as file:
        demo: Any = file["data/demo_0"]
        joints = demo["obs/joint_states"][()]
        del demo["obs/joint_states"]
        demo["obs/joint_states"] = joints[:, :5]
    with pytest.raises(DataError, match=r"data/demo_0/obs/joint_states has shape \(20, 5\)"):
        convert_libero(LiberoSettings(source, tmp_path / "out"))


def test_instructions_are_the_tasks_unless_the_files_are_asked_for(
    tmp_path: Path, libero_file: Callable[..., Path]
) -> None:
    def convert(name: str, **options: Any) -> tuple[str, list[str]]:
        dataset = open_dataset(convert_libero(LiberoSettings(source, tmp_path / name, **options)))
        assert dataset.episodes is not None
        assert set(dataset.episodes["file_instruction"].to_pylist()) == {"Pick up the milk"}
        assert set(dataset.samples["instruction"].to_pylist()) == set(dataset.episodes["instruction"].to_pylist())
        return dataset.episodes["instruction"][0].as_py(), dataset.info["recorded"]["instructions"]

    source = libero_file()
    assert convert("task") == ("pick up the milk and place it in the basket", ["task"])
    assert convert("file", instructions="file") == ("Pick up the milk", ["file"])
    source = libero_file("open_my_door")
    assert convert("unknown") == ("Pick up the milk", ["file"])
    source = libero_file("put_both_moka_pots_on_the_stove")
    with h5py.File(source, "a") as file:
        file["data"].attrs["problem_info"] = json.dumps({"language_instruction": "Put both moka pots on the stove"})
    source = source.rename(source.with_name("KITCHEN_SCENE8_put_both_moka_pots_on_the_stove_demo.hdf5"))
    dataset = open_dataset(convert_libero(LiberoSettings(source, tmp_path / "same", instructions="file")))
    assert dataset.info["recorded"] == {"image_size": [32], "fast_rendering": [False], "instructions": ["task"]}


def test_a_file_without_wording_needs_a_known_task(tmp_path: Path, libero_file: Callable[..., Path]) -> None:
    source = as_regenerated_by_oft(libero_file("open_my_door"), problem_info=False)
    with pytest.raises(DataError, match="has no wording") as refused:
        convert_libero(LiberoSettings(source, tmp_path / "out"))
    assert "Name the file after its LIBERO task" in str(refused.value.remedy)
    source = as_regenerated_by_oft(libero_file(), problem_info=False)
    with pytest.raises(DataError, match="has no wording"):
        convert_libero(LiberoSettings(source, tmp_path / "out", instructions="file"))
