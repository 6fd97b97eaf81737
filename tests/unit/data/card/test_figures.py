"""The card of a dataset counts right, shows what is wrong, and reads what it needs only."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pokevla.data.card.episodes import episode_figures
from pokevla.data.card.figures import dataset_figures, refuse_what_is_wrong
from pokevla.data.card.pictures import chosen_rows
from pokevla.data.dataset import CHECKS_NAME, open_dataset
from pokevla.data.sources.episodes import EPISODE_SCHEMA, SAMPLE_SCHEMA
from pokevla.data.sources.libero_vlm import LiberoVLMSettings, convert_libero_vlm
from pokevla.data.writer import DatasetWriter
from pokevla.embodiment.libero import LIBERO
from pokevla.errors import DataError
from tests.unit.data.loading.test_skipping import damage_sample
from tests.unit.data.test_inspection import spoil_episode


@contextlib.contextmanager
def uncounted(_what: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda _done, _total: None


def jpeg(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((32, 32), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write_episodes(out: Path, *, lengths: tuple[int, ...], instructions: tuple[str, ...], **options: Any) -> Path:
    """A robot dataset whose episode e has pictures of seed 1000 e + frame; `same` copies episode 0 to another one,
    `frozen` stops joint 0 of an episode, `checks` is the content of checks.json."""
    rng, same = np.random.default_rng(0), options.get("same")
    with DatasetWriter(
        out, group="g", samples=SAMPLE_SCHEMA, episodes=EPISODE_SCHEMA, embodiment=LIBERO, shard_samples=16
    ) as writer:
        first: tuple[np.ndarray, np.ndarray] | None = None
        for number, length in enumerate(lengths):
            actions, proprio = rng.uniform(-0.9, 0.9, (length, 7)), rng.normal(0, 0.01, (length, 8)).cumsum(axis=0)
            first = first or (actions, proprio)
            if number == same:
                actions, proprio = first
            if number == options.get("frozen"):
                proprio[:, 0] = proprio[0, 0]
            task = {"suite": "s", "task": "t", "task_index": 0, "instruction": instructions[number % len(instructions)]}
            task |= {"episode": number, "split": "val" if number == 1 else "train"}
            for frame in range(0, length, 5):
                seed = 0 if number == same else 1000 * number
                members = {f"{view}.jpg": jpeg(seed + frame + 500 * v) for v, view in enumerate(LIBERO.views)}
                key = f"e{number}-f{frame:04d}"
                members["json"] = json.dumps({"key": key}).encode()
                writer.add_sample(key, members, {**task, "frame": frame, "proprio": proprio[frame].tolist()})
            sequences = {"actions": actions.tolist(), "executed_actions": actions.tolist(), "proprio": proprio.tolist()}
            writer.add_episode(
                {**task, **sequences, "length": length, "init_state_index": 0, "target_shift": [0.0, 0.0]}
            )
        if "checks" in options:
            writer.add_file(CHECKS_NAME, json.dumps(options["checks"]).encode())
        writer.finish({"statistics": None, "sources": [{"file": "a.hdf5"}]})
    return out


def test_a_card_counts_what_a_robot_dataset_holds(robot_dataset: Callable[..., Path]) -> None:
    root = robot_dataset(demos=3, frames=20)
    figures, dataset = dataset_figures(root, uncounted, rows=10), open_dataset(root)
    robot = figures["robot"]
    assert (figures["num_samples"], robot["episodes"]) == (dataset.samples.num_rows, 3)
    assert robot["by_split"] == {"train": {"episodes": 2, "frames": 36}, "val": {"episodes": 1, "frames": 18}}
    assert robot["instructions"]["listed"] == [{"text": "pick up the milk and place it in the basket", "count": 3}]
    assert robot["hours"] == pytest.approx(54 / 20 / 3600)
    assert [column["name"] for column in robot["actions"]] == [
        *(f"position {n}" for n in range(3)), *(f"rotation {n}" for n in range(3)), "gripper"
    ]  # fmt: skip
    actions = np.concatenate([np.array(each) for each in dataset.episodes["actions"].to_pylist()])  # type: ignore[index]
    statistics = dataset.statistics
    assert statistics is not None
    for number, column in enumerate(robot["actions"][:6]):
        low, high = statistics.action.q01[number], statistics.action.q99[number]
        outside = ((actions[:, number] < low - 1e-6) | (actions[:, number] > high + 1e-6)).mean()
        assert column["share_outside"] == pytest.approx(outside)
        histogram = column["histogram"]
        assert sum(histogram["counts"]) + histogram["below"] + histogram["above"] == 54
    gripper = robot["actions"][6]
    assert (gripper["marks"], gripper["q01"], gripper["share_outside"]) == ({"open": -1.0, "closed": 1.0}, None, 0.0)
    assert figures["equal_images"]["images"] == 108
    assert len(figures["samples"]) == 10
    assert all(len(sample["pictures"]) == 2 for sample in figures["samples"])
    assert figures["near"]["pictures"] == 10
    assert figures["damaged"] == robot["alarms"] == []
    assert robot["equal_actions"] == {"episodes": 0, "groups": []}


def test_repeated_episodes_frozen_joints_and_odd_lengths_are_found(tmp_path: Path) -> None:
    lengths = (40, 42, 40, 200, 41, 43, 44, 8)
    root = write_episodes(tmp_path / "d", lengths=lengths, instructions=("Pick it", "pick  it"), same=2, frozen=4)
    figures = dataset_figures(root, uncounted, rows=200)
    robot = figures["robot"]
    assert robot["equal_actions"] == {"episodes": 2, "groups": [[0, 2]]}
    assert [{entry["text"] for entry in group} for group in robot["instructions"]["variants"]] == [
        {"Pick it", "pick  it"}
    ]
    codes = robot["odd"]["codes"]
    assert codes["length_outlier"]["episodes"] == 2
    assert codes["frozen_joint"]["episodes"] == 1
    messages = [finding["message"] for row in robot["odd"]["listed"] for finding in row["findings"]]
    assert any(message.startswith("episode 4: position 0 stays at") for message in messages)
    assert {message.split(":")[0] for message in messages if "usual are" in message} == {"episode 3", "episode 7"}
    assert figures["equal_images"]["across"] == 2 * 8, "both views of the frames of the copied episode"
    assert figures["equal_images"]["groups"][0] == [0, 2, 16]
    assert figures["near"]["pairs"] >= 8
    assert figures["near"]["shown"][0]["bits"] == 0
    assert robot["statistics_of"].startswith("400 episodes")


def test_what_the_conversion_found_is_shown(tmp_path: Path) -> None:
    finding = {"code": "jump", "message": "a.hdf5: joint 3 moves at 99 rad/s.", "count": 1}
    checks = {
        "episodes": 2, "left_out": 0, "codes": {"jump": {"episodes": 1, "count": 1}},
        "found": [{"episode": "a.hdf5", "left_out": False, "findings": [finding]}],
    }  # fmt: skip
    root = write_episodes(tmp_path / "d", lengths=(30, 30), instructions=("x",), frozen=1, checks=checks)
    odd = episode_figures(open_dataset(root))["odd"]
    assert odd["codes"]["jump"]["meaning"] == "the state jumps within one step"
    assert odd["listed"][0]["findings"] == [finding]
    assert "frozen_joint" not in odd["codes"], "not found a second time"
    (root / CHECKS_NAME).write_text("[]")
    with pytest.raises(DataError, match=r"checks\.json is damaged"):
        episode_figures(open_dataset(root))


def test_damage_is_told_and_the_rest_is_still_shown(robot_dataset: Callable[..., Path]) -> None:
    root = robot_dataset(demos=2, frames=10, side=8)
    key = damage_sample(root, 3)
    spoil_episode(root, "actions", np.nan)
    figures = dataset_figures(root, uncounted)
    (told,) = figures["damaged"]
    assert f"the checksum of {key}.base.jpg differs" in told
    assert figures["robot"]["alarms"] == ["episode 1: actions, row 2: column 1 is nan, not finite."]
    with pytest.raises(DataError, match=r"episode 1: actions.* There are 1 more"):
        refuse_what_is_wrong(root, figures)


def test_a_damaged_table_is_refused(robot_dataset: Callable[..., Path]) -> None:
    root = robot_dataset(demos=1, frames=10, side=8)
    path = root / "episodes.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"episodes\.parquet is damaged: its checksum differs"):
        dataset_figures(root, uncounted)


def test_a_card_of_questions(tmp_path: Path, scenes_file: Callable[..., Path]) -> None:
    root = convert_libero_vlm(LiberoVLMSettings([scenes_file()], tmp_path / "vlm"))
    figures, table = dataset_figures(root, uncounted), open_dataset(root).samples.to_pylist()
    vlm = figures["vlm"]
    assert vlm["questions"] == figures["num_samples"] == len(table)
    assert sum(vlm["counts"]["category"].values()) == len(table)
    assert vlm["by_category"]["grounding"].keys() <= {"point", "box"}
    assert vlm["points"]["count"] == sum(len(row["target_points"]) for row in table)
    assert vlm["boxes"]["count"] == sum(len(row["target_boxes"]) for row in table) == sum(vlm["boxes"]["areas"])
    row = next(row for row in table if row["target_points"])
    x, y = row["target_points"][0]
    assert vlm["points"]["grid"][int(y * 20)][int(x * 20)] > 0
    assert vlm["answer_lengths"]["largest"] == max(len(row["answer"]) for row in table)
    assert {sample["key"] for sample in figures["samples"]} <= {row["key"] for row in table}
    assert figures["near"]["pairs"] == 0, "questions about one image are no duplicates"


def test_rows_are_spread_over_the_dataset_and_always_the_same(robot_dataset: Callable[..., Path]) -> None:
    dataset = open_dataset(robot_dataset(demos=3, frames=40, side=8))
    rows = chosen_rows(dataset, 30)
    assert rows.tolist() == sorted(set(rows.tolist())) == chosen_rows(dataset, 30).tolist()
    assert 25 <= len(rows) <= 30
    assert rows.min() < 38 < 76 < rows.max()
    assert chosen_rows(dataset, 500).tolist() == list(range(len(dataset.rows)))
