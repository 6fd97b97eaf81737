"""A dataset that goes to LeRobot's format and back is the same, whatever its numbers, texts and splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pokevla.data.dataset import Dataset, open_dataset
from pokevla.data.reader import ShardReader
from pokevla.data.recordings.conversion import RecordingSettings, convert_recordings
from pokevla.data.recordings.episode import Episode
from pokevla.data.recordings.fields import Options
from pokevla.data.recordings.functions import FunctionSource
from pokevla.data.recordings.lerobot.export import export_lerobot
from pokevla.embodiment.description import Embodiment, FieldSpec, Gripper
from tests.unit.data.recordings.conftest import lerobot_source

SIDE = 16
ROBOT = Embodiment(
    name="toy",
    version=1,
    views=("base", "wrist"),
    proprio=(FieldSpec("joints", 2, "rad"),),
    action=(FieldSpec("joints", 2, "rad"), FieldSpec("gripper", 1, "1")),
    grippers=(Gripper(2, 1.0, 0.0),),
    action_mask=(True, True, False),
    control_mode="absolute_joint",
    control_rate_hz=12.5,
)
BACK = Options(
    state=["joints=observation.state@rad"], action=["joints=action[0:2]@rad", "gripper=action[2:3]"],
    grippers=["gripper=1,0"], control_mode="absolute_joint",
)  # fmt: skip
NUMBERS = st.floats(-1e6, 1e6)
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(lambda text: bool(text.strip()))


@st.composite
def an_episode(draw: st.DrawFn) -> Episode:
    length = draw(st.integers(1, 4))
    actions = draw(st.lists(st.tuples(NUMBERS, NUMBERS, st.sampled_from([0.0, 1.0])), min_size=length, max_size=length))
    proprio = draw(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=length, max_size=length))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    frames = {view: rng.integers(0, 256, (length, SIDE, SIDE, 3), np.uint8) for view in ROBOT.views}
    split = draw(st.sampled_from(["train", "val"]))
    return Episode(draw(TEXTS), np.array(actions), np.array(proprio), frames, split=split)


def content(dataset: Dataset) -> list[dict[str, Any]]:
    """Everything of each episode, those of `train` first."""
    assert dataset.episodes is not None
    reader, found, row = ShardReader(dataset), [], 0
    for episode in dataset.episodes.to_pylist():
        members = [reader.read(row + frame) for frame in range(episode["length"])]
        images = [{view: each[f"{view}.jpg"] for view in ROBOT.views} for each in members]
        names = ("split", "instruction", "length", "actions", "proprio")
        found.append({**{name: episode[name] for name in names}, "images": images})
        row += episode["length"]
    reader.close()
    assert row == dataset.samples.num_rows
    return sorted(found, key=lambda each: each["split"] != "train")


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(an_episode(), min_size=1, max_size=4).filter(lambda all_: any(e.split == "train" for e in all_)))
def test_export_and_conversion_undo_each_other(tmp_path_factory: Any, episodes: list[Episode]) -> None:
    folder: Path = tmp_path_factory.mktemp("round")
    source = FunctionSource("toy", ROBOT, len(episodes), episodes.__getitem__)
    ours = open_dataset(convert_recordings(source, RecordingSettings(folder / "ours", image_size=SIDE)))
    root = export_lerobot(ours, folder / "lerobot", "image")
    again = open_dataset(
        convert_recordings(lerobot_source(root, BACK), RecordingSettings(folder / "again", image_size=SIDE))
    )
    assert content(again) == content(ours)
    assert again.embodiment == ours.embodiment
