from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from pokevla.data.dataset import open_dataset
from pokevla.data.reader import ShardReader
from pokevla.data.sources.images import encode_jpeg
from pokevla.data.sources.libero import LiberoSettings, convert_libero
from pokevla.data.sources.tasks import identify, libero_tasks, phrase
from pokevla.embodiment.noops import moving_frames
from pokevla.errors import DataError


def convert(source: Path, out: Path, **options: object) -> Path:
    return convert_libero(LiberoSettings(source, out, **{"noops": "drop", **options}))  # type: ignore[arg-type]


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_our_frames_stay_in_place_and_are_turned_once(tmp_path: Path, libero_file: Callable[..., Path]) -> None:
    source = libero_file(demos=1)
    dataset = open_dataset(convert(source, tmp_path / "out"))
    with h5py.File(source) as file:
        demo = file["data/demo_0"]
        stored, actions = demo["obs/agentview_rgb"][()], demo["actions"][()]  # type: ignore[index]
        states = demo["obs/ee_states"][()]  # type: ignore[index]
    keep = moving_frames(actions)
    assert keep.tolist() == [t not in (3, 4) for t in range(20)]
    members = ShardReader(dataset).read(5)
    image = np.asarray(Image.open(io.BytesIO(members["base.jpg"])))
    t = int(np.flatnonzero(keep)[5])
    assert np.abs(image.astype(int) - stored[t, ::-1, ::-1]).mean() < 2.0
    assert dataset.samples["proprio"][5].as_py()[:6] == pytest.approx(states[t])
    assert dataset.episodes is not None
    assert np.array_equal(dataset.episodes["actions"][0].as_py(), actions[keep])
    assert json.loads(members["json"])["action"] == actions[t].tolist()


def test_published_observations_pair_with_the_next_action(tmp_path: Path, libero_file: Callable[..., Path]) -> None:
    source = libero_file(demos=1, ours=False)
    dataset = open_dataset(convert(source, tmp_path / "out"))
    with h5py.File(source) as file:
        actions, states = file["data/demo_0/actions"][()], file["data/demo_0/obs/ee_states"][()]  # type: ignore[index]
    keep = moving_frames(actions[1:])
    assert dataset.episodes is not None
    assert np.array_equal(dataset.episodes["actions"][0].as_py(), actions[1:][keep])
    proprio = np.array(dataset.episodes["proprio"][0].as_py())
    assert proprio[:, :6] == pytest.approx(states[:-1][keep], abs=1e-6)


def test_published_files_give_samples_without_masks(tmp_path: Path, libero_file: Callable[..., Path]) -> None:
    dataset = open_dataset(convert(libero_file(ours=False), tmp_path / "out", val_fraction=0.34))
    assert dataset.fields == ["base.jpg", "json", "wrist.jpg"]
    assert not dataset.has_masks
    assert dataset.episodes is not None
    assert dataset.episodes["split"].to_pylist() == ["train", "train", "val"]
    assert dataset.episodes["executed_actions"].to_pylist() == dataset.episodes["actions"].to_pylist()


def test_masks_hold_target_and_reference_objects_only(tmp_path: Path, libero_file: Callable[..., Path]) -> None:
    dataset = open_dataset(convert(libero_file(demos=1), tmp_path / "out"))
    members = ShardReader(dataset).read(0)
    mask = np.asarray(Image.open(io.BytesIO(members["base.mask.png"])))
    expected = np.zeros((32, 32), dtype=bool)
    expected[4:12, 4:12] = True  # milk_1
    expected[16:28, 16:28] = True  # basket_1; bbq_sauce_1 is not a target
    assert np.array_equal(mask, expected)


def test_frames_that_were_not_rendered_give_no_sample(tmp_path: Path, libero_file: Callable[..., Path]) -> None:
    dataset = open_dataset(convert(libero_file(demos=1, stride=2), tmp_path / "out"))
    assert dataset.episodes is not None
    assert dataset.episodes["length"].to_pylist() == [18]
    frames = dataset.samples["frame"].to_pylist()
    assert frames == [0, 2, 4, 6, 8, 10, 12, 14, 16]  # of 20 frames, 3 and 4 are no-ops; even ones were rendered
    assert dataset.samples["key"][1].as_py() == "libero_object-t07-e0000-f0002"


def test_two_conversions_are_byte_identical(tmp_path: Path, libero_file: Callable[..., Path]) -> None:
    source = libero_file()
    assert files(convert(source, tmp_path / "a")) == files(convert(source, tmp_path / "b"))


def test_statistics_are_those_of_the_training_split(tmp_path: Path, libero_file: Callable[..., Path]) -> None:
    dataset = open_dataset(convert(libero_file(demos=3), tmp_path / "out"))
    assert dataset.statistics is not None
    assert dataset.episodes is not None
    train = [e for e in dataset.episodes.to_pylist() if e["split"] == "train"]
    proprio = np.concatenate([e["proprio"] for e in train])
    assert dataset.statistics.num_episodes == 2
    assert dataset.statistics.proprio.q99 == pytest.approx(np.quantile(proprio, 0.99, axis=0))
    assert dataset.info["sources"][0]["init_states"] == [0, 3]


def test_a_folder_gives_one_dataset_with_episodes_numbered_through(
    tmp_path: Path, libero_file: Callable[..., Path]
) -> None:
    libero_file(demos=2)
    libero_file("pick_up_the_ketchup_and_place_it_in_the_basket", demos=2, seed=1)
    dataset = open_dataset(convert(tmp_path / "source", tmp_path / "out"))
    assert dataset.episodes is not None
    assert dataset.episodes["episode"].to_pylist() == [0, 1, 2, 3]
    assert dataset.episodes["task_index"].to_pylist() == [4, 4, 7, 7]
    assert len(set(dataset.samples["key"].to_pylist())) == dataset.samples.num_rows


def test_a_jpeg_is_close_to_its_picture() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(noise).resize((128, 128), Image.Resampling.BICUBIC))
    again = np.asarray(Image.open(io.BytesIO(encode_jpeg(picture, 95))))
    assert np.abs(again.astype(int) - picture).mean() < 1.5


def test_a_file_in_the_wrong_layout_names_demo_and_key(tmp_path: Path, libero_file: Callable[..., Path]) -> None:
    for key in ("obs/ee_states", "obs/agentview_rgb", "actions"):
        source = libero_file()
        with h5py.File(source, "a") as file:
            del file[f"data/demo_1/{key}"]
        with pytest.raises(DataError, match=f"_demo.hdf5: data/demo_1/{key} is missing"):
            convert(source, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


def test_wrong_shapes_and_headers_are_named(tmp_path: Path, libero_file: Callable[..., Path]) -> None:
    source = libero_file()
    with h5py.File(source, "a") as file:
        del file["data/demo_0/actions"]
        file["data/demo_0/actions"] = np.zeros((20, 6))
    with pytest.raises(DataError, match=r"demo_0/actions has shape \(20, 6\)"):
        convert(source, tmp_path / "out")
    with h5py.File(source, "a") as file:
        file["data"].attrs["problem_info"] = "{}"
    with pytest.raises(DataError, match="problem_info"):
        convert(source, tmp_path / "out")
    with h5py.File(source, "a") as file:
        del file["data"]
    with pytest.raises(DataError, match="no group `data`"):
        convert(source, tmp_path / "out")


def test_a_truncated_file_is_named(tmp_path: Path, libero_file: Callable[..., Path]) -> None:
    source = libero_file()
    source.write_bytes(source.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"_demo\.hdf5 cannot be opened: truncated"):
        convert(source, tmp_path / "out")


def test_no_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such file"):
        convert(tmp_path / "nowhere", tmp_path / "out")


def test_masks_without_target_names_are_refused(tmp_path: Path, libero_file: Callable[..., Path]) -> None:
    source = libero_file()
    with h5py.File(source, "a") as file:
        del file["data"].attrs["target_instances"]
    with pytest.raises(DataError, match="target_instances"):
        convert(source, tmp_path / "out")


def test_noop_rule_keeps_changes_of_the_gripper() -> None:
    actions = np.zeros((6, 7))
    actions[:, 6] = [-1, -1, 1, 1, -1, -1]
    actions[1, 0] = 0.5
    # For the first frame only the arm counts; later ones are kept if the gripper command changes.
    assert moving_frames(actions).tolist() == [False, True, True, False, True, False]


def test_pauses_of_our_own_expert_are_kept_by_default(tmp_path: Path, libero_file: Callable[..., Path]) -> None:
    ours = open_dataset(convert(libero_file(demos=1), tmp_path / "ours", noops="auto"))
    published = open_dataset(convert(libero_file(demos=1, ours=False), tmp_path / "theirs", noops="auto"))
    assert ours.episodes is not None
    assert published.episodes is not None
    assert ours.episodes["length"].to_pylist() == [20]
    assert published.episodes["length"].to_pylist() == [20 - 1 - 2]  # without the first action and the no-ops


def test_task_names_find_their_suite_and_index() -> None:
    assert [len(names) for names in libero_tasks().values()] == [10, 10, 10, 10]
    name = "put_the_bowl_on_the_stove"
    assert identify(Path("x/anywhere") / f"{name}_demo.hdf5") == ("libero_goal", name, 1)
    assert identify(Path("x/my_suite/open_the_door_demo.hdf5")) == ("my_suite", "open_the_door", None)
    assert [phrase(n) for n in ("bbq_sauce_1", "flat_stove_12", "plate")] == ["bbq sauce", "flat stove", "plate"]
