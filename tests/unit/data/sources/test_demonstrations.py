"""Foreign content of an HDF5 file ends a conversion with exit code 3 and one line that names file, demo and key."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pokevla.cli.main import run
from pokevla.data.dataset import open_dataset
from pokevla.data.sources.libero import LiberoSettings, convert_libero
from pokevla.data.sources.libero_vlm import LiberoVLMSettings, convert_libero_vlm
from pokevla.errors import DataError
from tests.unit.files.foreign.test_hdf5 import DEMONSTRATION

Damage = Callable[[Any], None]


def put(key: str, values: object) -> Damage:
    """Replaces what is at `key`, a number within an array if `key` ends in an index."""

    def damage(file: Any) -> None:
        file.pop(key, None)
        if values is not None:
            file[key] = values

    return damage


def number(key: str, place: tuple[int, ...], value: float) -> Damage:
    def damage(file: Any) -> None:
        file[key][place] = value

    return damage


def attribute(owner: str, name: str, value: object) -> Damage:
    def damage(file: Any) -> None:
        file[owner].attrs[name] = value

    return damage


def rename_demo(file: Any) -> None:
    file.move("data/demo_1", "data/demo_01")


def group_for_dataset(file: Any) -> None:
    del file["data/demo_1/actions"]
    file.create_group("data/demo_1/actions")


CASES: list[tuple[Damage, str]] = [
    (put("data/demo_1/actions", h5py.SoftLink("/nowhere")), "data/demo_1/actions is missing"),
    (put("data/demo_1/actions", h5py.ExternalLink("other.hdf5", "/actions")), "data/demo_1/actions cannot be read"),
    (group_for_dataset, "data/demo_1/actions is not a dataset"),
    (put("data/demo_1", np.zeros(1)), "data/demo_1/actions is missing"),
    (rename_demo, "should hold demo_0, demo_1, ..., not data/demo_01"),
    (put("data", np.zeros(1)), "has no group `data`"),
    (attribute("data", "problem_info", json.dumps({"language_instruction": None})), "`problem_info` of data lacks"),
    (attribute("data", "problem_info", json.dumps({"language_instruction": [1, 2]})), "`problem_info` of data lacks"),
    (attribute("data", "problem_info", "{"), "attribute `problem_info` of data is damaged: not JSON"),
    (attribute("data", "problem_info", np.bytes_(b"\xff")), "attribute `problem_info` of data cannot be read"),
    (attribute("data", "problem_info", 7), "attribute `problem_info` of data is not a text"),
    (attribute("data", "instances", "7"), "attribute `instances` of data is not a JSON list of names"),
    (
        attribute("data", "pokevla_collection", '{"a": NaN}'),
        "`pokevla_collection` of data is damaged: not JSON",
    ),
    (attribute("data", "pokevla_obs_alignment", "befor"), "`pokevla_obs_alignment` of data is not"),
    (attribute("data/demo_1", "split", 3), "attribute `split` of data/demo_1 is not a text"),
    (attribute("data/demo_1", "init_state_index", "x"), "`init_state_index` of data/demo_1 is not an integer"),
    (attribute("data/demo_1", "target_shift", [1.0]), "`target_shift` of data/demo_1 is not a pair of numbers"),
    (put("data/demo_1/actions", np.zeros((20, 7), dtype="S3")), "data/demo_1/actions has shape (20, 7) and type text"),
    (put("data/demo_1/obs/agentview_rgb", np.zeros((20, 8, 8, 3))), "obs/agentview_rgb has shape (20, 8, 8, 3)"),
    (put("data/demo_1/obs/rendered", np.zeros(20, bool)), "data/demo_1 has no frame with an image"),
    # Numbers that are not finite, or absurd.
    (number("data/demo_1/actions", (3, 2), np.nan), "data/demo_1/actions, row 3: column 2 is nan, not finite"),
    (number("data/demo_1/actions", (3, 2), -np.inf), "data/demo_1/actions, row 3: column 2 is -inf, not finite"),
    (number("data/demo_1/actions", (3, 2), 6e299), "data/demo_1/actions, row 3: column 2 is 6e+299, above the limit"),
    (number("data/demo_1/executed_actions", (0, 0), np.inf), "data/demo_1/executed_actions, row 0: column 0 is inf"),
    (number("data/demo_1/obs/ee_states", (19, 5), np.nan), "data/demo_1/obs/ee_states, row 19: column 5 is nan"),
    (
        number("data/demo_1/obs/gripper_states", (4, 1), 1e38),
        "data/demo_1/obs/gripper_states, row 4: column 1 is 1e+38",
    ),
    (number("data/demo_1/obs/eye_in_hand_mask", (4, 0, 0), 200), "obs/eye_in_hand_mask, row 4: mask value 200, but"),
]


@pytest.mark.parametrize(("damage", "words"), CASES, ids=[words[:50] for _, words in CASES])
def test_odd_content_is_one_line_with_file_demo_and_key(
    tmp_path: Path, libero_file: Callable[..., Path], capsys: pytest.CaptureFixture[str], damage: Damage, words: str
) -> None:
    source = libero_file(frames=20, side=8)
    with h5py.File(source, "a") as file:
        damage(file)
    assert run(["data", "convert", "libero", str(source), str(tmp_path / "out")]) == 3
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert line.startswith(f"error: {source}")
    assert words in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["libero", "libero-vlm"])
@pytest.mark.parametrize(("place", "value"), [(1889, 255), (2168, 134)], ids=["crash", "hang"])
def test_a_crash_and_a_hang_of_libhdf5_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, place: int, value: int
) -> None:
    content = bytearray(gzip.decompress(DEMONSTRATION.read_bytes()))
    content[place] = value
    source = tmp_path / "libero_object/x_demo.hdf5"
    source.parent.mkdir()
    source.write_bytes(content)
    assert run(["data", "convert", verb, str(source), str(tmp_path / "out"), "--read-timeout", "3"]) == 3
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert line.startswith(f"error: {source}: attribute `")
    assert "of data cannot be read: the file is damaged (libhdf5 " in line


def test_an_episode_without_motion_is_not_lost_in_silence(
    tmp_path: Path, libero_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    source = libero_file(demos=2, side=8, ours=False)
    with h5py.File(source, "a") as file:
        file["data/demo_1/actions"][...] = 0.0  # type: ignore[index]
    command = ["data", "convert", "libero", str(source), str(tmp_path / "out")]
    assert run(command) == 3
    assert f"{source}: data/demo_1 has no image with motion" in capsys.readouterr().err
    assert run([*command, "--max-skipped", "0.5"]) == 0
    assert "note: left out 1 of 2 episodes" in capsys.readouterr().err


def with_bad_demos(source: Path, *bad: int) -> Path:
    with h5py.File(source, "a") as file:
        for demo in bad:
            file[f"data/demo_{demo}/actions"][5, 0] = np.nan  # type: ignore[index]
    return source


def test_a_stated_share_of_episodes_may_be_left_out_and_is_told(
    tmp_path: Path, libero_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = with_bad_demos(libero_file(demos=4, side=8), 1), tmp_path / "out"
    assert run(["data", "convert", "libero", str(source), str(out), "--max-skipped", "0.25"]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note:")]
    assert notes[0] == "note: left out 1 of 4 episodes:"
    assert "data/demo_1/actions, row 5: column 0 is nan" in notes[1]
    dataset = open_dataset(out)
    assert dataset.episodes is not None
    assert dataset.episodes["episode"].to_pylist() == [0, 1, 2]
    assert list(dataset.info["skipped"]) == [f"{source.name}: data/demo_1"]
    assert run(["data", "stats", str(out)]) == 0
    assert "data/demo_1" in capsys.readouterr().out


def test_more_than_the_share_is_refused(tmp_path: Path, libero_file: Callable[..., Path]) -> None:
    source = with_bad_demos(libero_file(demos=4, side=16), 1, 3)
    with pytest.raises(DataError, match=r"2 of 4 episodes cannot be used.*0\.25.*data/demo_3/actions, row 5"):
        convert_libero(LiberoSettings(source, tmp_path / "out", max_skipped=0.25))
    with pytest.raises(DataError, match="2 of 4 episodes and scenes cannot be used"):
        convert_libero_vlm(LiberoVLMSettings([source], tmp_path / "out", max_skipped=0.25))
    assert not (tmp_path / "out").exists()


def test_linked_folders_are_converted_and_other_files_told(
    tmp_path: Path, libero_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    first = libero_file(demos=1, side=16)
    other = libero_file("pick_up_the_ketchup_and_place_it_in_the_basket", folder="elsewhere", demos=2, side=16)
    (tmp_path / "source/linked").symlink_to(other.parent)
    first.with_name("notes.txt").touch()
    for verb in ("libero", "libero-vlm"):
        assert run(["data", "convert", verb, str(tmp_path / "source"), str(tmp_path / verb)]) == 0
        error = capsys.readouterr().err
        assert "note: passed over 1 files that are not *.hdf5 (1 .txt)" in error
    assert [each["file"] for each in open_dataset(tmp_path / "libero").info["sources"]] == [other.name, first.name][
        ::-1
    ]
