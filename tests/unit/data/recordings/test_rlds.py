from __future__ import annotations

import io
import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.recorded.episodes import Recorded, record, shown
from benchmarks.recorded.rlds import tfrecord, write_rlds
from pokevla.cli.main import run
from pokevla.data.dataset import Dataset, open_dataset
from pokevla.data.reader import ShardReader
from pokevla.data.recordings.faults import Fault
from pokevla.data.recordings.fields import Options
from pokevla.data.recordings.rlds.example import new_example, parse_example
from pokevla.data.recordings.rlds.metadata import read_rlds_metadata
from pokevla.data.recordings.rlds.source import choose_rlds
from pokevla.data.recordings.rlds.tfrecord import index_records, masked_crc32c, read_record
from pokevla.embodiment.libero import LIBERO
from pokevla.errors import DataError, UsageError

OPTIONS = ["--image-size", "64", "--workers", "0"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Recorded]]:
    episodes = [record(number, 15, f"Pick up object {number % 2}") for number in range(5)]
    return write_rlds(tmp_path_factory.mktemp("rlds") / "libero_toy", episodes), episodes


def convert(source: Path, out: Path, *options: str) -> Dataset:
    assert run(["data", "convert", "rlds", str(source), str(out), *OPTIONS, *options]) == 0
    return open_dataset(out)


def shards(root: Path) -> list[Path]:
    return sorted((root / "1.0.0").glob("*.tfrecord-*"))


def test_libero_s_layout_needs_no_options(tmp_path: Path, toy: tuple[Path, list[Recorded]]) -> None:
    root, episodes = toy
    dataset = convert(root, tmp_path / "out")
    assert dataset.embodiment == LIBERO
    assert dataset.episodes is not None
    assert dataset.episodes["instruction"].to_pylist() == [e.task for e in episodes]
    reader = ShardReader(dataset)
    for row, place in enumerate(dataset.samples.select(["episode", "frame"]).to_pylist()):
        members = reader.read(row)
        for camera, view in ((0, "base"), (2, "wrist")):
            image = np.asarray(Image.open(io.BytesIO(members[f"{view}.jpg"])))
            assert shown(image) == (camera, place["episode"], place["frame"])
    actions = np.asarray(dataset.episodes["actions"][3].as_py(), np.float32)
    assert np.array_equal(actions[:, :6], episodes[3].action[:, :6])
    assert set(np.unique(actions[:, 6])) == {-1.0, 1.0}
    assert "gripper_inverted" not in dataset.info["checks"]


def test_another_robot_is_described_by_options(tmp_path: Path, toy: tuple[Path, list[Recorded]]) -> None:
    words = ["--camera", "front=observation/image", "--state", "joints=observation/joint_state@rad"]
    words += ["--action", "joints=action[0:6]", "--action", "gripper=action[6:7]", "--gripper", "6=-1,1"]
    words += ["--control-mode", "absolute_joint", "--rate", "10", "--robot", "panda"]
    dataset = convert(toy[0] / "1.0.0", tmp_path / "out", *words)
    robot = dataset.embodiment
    assert robot is not None
    assert (robot.name, robot.views, robot.proprio_width, robot.control_rate_hz) == ("panda", ("front",), 7, 10.0)


def test_what_a_dataset_does_not_say_is_asked_for(toy: tuple[Path, list[Recorded]]) -> None:
    metadata = read_rlds_metadata(toy[0])
    with pytest.raises(UsageError, match=r"does not say .* Give --control-mode"):
        choose_rlds(metadata, Options(robot="panda"), lambda note: None)
    with pytest.raises(
        UsageError, match=r"--camera observation/depth: the dataset has no such camera. It has observation/image"
    ):
        choose_rlds(metadata, Options(cameras=["observation/depth"]), lambda note: None)


def test_a_truncated_file_costs_its_last_episodes(tmp_path: Path) -> None:
    root = write_rlds(tmp_path / "toy", [record(number, 10) for number in range(6)])
    path = shards(root)[1]
    path.write_bytes(path.read_bytes()[:-50])
    words = ["data", "convert", "rlds", str(root), str(tmp_path / "out"), *OPTIONS]
    assert run(words) == 3
    assert run([*words, "--on-fault", "skip"]) == 0
    dataset = open_dataset(tmp_path / "out")
    assert dataset.info["num_episodes"] == 5
    (reason,) = dataset.info["skipped"].values()
    assert "00001-of-00003 ends within a record" in reason
    assert "it is truncated" in reason


def test_a_flipped_byte_is_found_by_its_checksum(tmp_path: Path) -> None:
    root = write_rlds(tmp_path / "toy", [record(number, 10) for number in range(4)])
    path = shards(root)[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1
    path.write_bytes(content)
    shards(root)[1].unlink()
    words = ["data", "convert", "rlds", str(root), str(tmp_path / "out"), *OPTIONS, "--on-fault", "skip"]
    assert run([*words, "--max-skipped", "0.9"]) == 0
    dataset = open_dataset(tmp_path / "out")
    assert dataset.info["num_episodes"] == 1
    reasons = list(dataset.info["skipped"].values())
    assert "is damaged in the record at byte" in reasons[0]
    assert "cannot be read (No such file or directory)" in reasons[1]


def test_a_file_with_other_episodes_than_said_is_noticed(tmp_path: Path) -> None:
    root = write_rlds(tmp_path / "toy", [record(number, 10) for number in range(4)])
    shards(root)[1].write_bytes(b"")
    assert run(["data", "convert", "rlds", str(root), str(tmp_path / "out"), *OPTIONS, "--on-fault", "skip"]) == 0
    (reason,) = open_dataset(tmp_path / "out").info["skipped"].values()
    assert reason.endswith("has 0 episodes, dataset_info.json says 2.")


def test_damaged_metadata_are_named(tmp_path: Path, toy: tuple[Path, list[Recorded]]) -> None:
    with pytest.raises(DataError, match=r"no \*dataset_info.json below it"):
        read_rlds_metadata(tmp_path)
    folder = tmp_path / "set"
    folder.mkdir()
    info = json.loads((toy[0] / "1.0.0/dataset_info.json").read_text())
    for change, message in (
        ({"fileFormat": "riegeli"}, "of the format riegeli, not tfrecord"),
        ({"splits": [{"name": "train"}]}, r"is damaged: KeyError\('shardLengths'\)"),
        ({"name": "../../x"}, "leads out of the dataset"),
    ):
        (folder / "dataset_info.json").write_text(json.dumps({**info, **change}))
        (folder / "features.json").write_bytes((toy[0] / "1.0.0/features.json").read_bytes())
        with pytest.raises(DataError, match=message):
            read_rlds_metadata(folder)


def test_the_checksum_is_the_one_of_tensorflow() -> None:
    # crc32c of 32 bytes of zeros is 0x8a9136aa (RFC 3720, appendix B.4)
    crc = 0x8A9136AA
    assert masked_crc32c(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(0, 400), st.binary(min_size=1, max_size=3))
def test_records_come_back_as_written_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], place: int, noise: bytes
) -> None:
    path = tmp_path_factory.mktemp("records") / "x.tfrecord"
    clean = tfrecord(contents)
    path.write_bytes(clean)
    records, damage = index_records(path)
    assert damage is None
    assert [read_record(path, each) for each in records] == contents
    damaged = bytearray(clean)
    damaged[place : place + len(noise)] = noise
    path.write_bytes(damaged)
    records, _ = index_records(path)
    for number, each in enumerate(records):
        with suppress(Fault):
            assert read_record(path, each) in (contents[number : number + 1] or [b""])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_example_or_a_fault(content: bytes) -> None:
    with suppress(Fault):
        assert isinstance(parse_example(content, "x"), dict)


def test_examples_hold_numbers_and_bytes() -> None:
    example = new_example()
    example.features.feature["a"].float_list.value.extend([1.5, -2.0])
    example.features.feature["b"].int64_list.value.extend([-(2**63), 2**63 - 1])
    example.features.feature["c"].bytes_list.value.append(b"\xff\x00")
    found = parse_example(example.SerializeToString(), "x")
    assert np.array_equal(found["a"], np.array([1.5, -2.0], np.float32))
    assert np.array_equal(found["b"], np.array([-(2**63), 2**63 - 1]))
    assert found["c"] == [b"\xff\x00"]
