"""What TensorBoard is given, read back with TensorBoard's own readers."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams import metadata

from pokevla.telemetry.tensorboard import CHARTS, TensorBoardWriter
from pokevla.telemetry.writers import MetricWriter

# What the loop, the meter, the saver and the evaluation of a GPU run write.
LOGGED = (
    "loss", "loss/action", "val/loss", "val/loss/action", "val_swapped/loss/action", "lr", "grad_norm",
    "grad_norm/action", "samples_per_s", "step_s", "step_s/mean", "step_s/max", "save_blocked_s",
    "tflops_per_rank", "mfu", "data_wait_share", "rss_gib",
    "gpu_memory_gib", "gpu_utilisation", "gpu_power_w", "skipped", "success_rate/all", "mask_iou", "point_accuracy/all",
)  # fmt: skip


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    return events


def steps_of(folder: Path, tag: str) -> list[int]:
    return [event.step for event in read(folder).Scalars(tag)]


def write_steps(run_dir: Path, *steps: int, resume_step: int | None = None) -> None:
    writer = MetricWriter(run_dir, resume_step=resume_step)
    for step in steps:
        writer.write({"step": step, "loss": float(step)})
    writer.close()


def test_every_logged_figure_has_a_chart() -> None:
    tags = [tag for charts in CHARTS.values() for patterns in charts.values() for tag in patterns]
    without = [name for name in LOGGED if not any(re.match(tag, name) for tag in tags)]
    assert without == []


def test_every_chart_has_a_figure() -> None:
    tags = [tag for charts in CHARTS.values() for patterns in charts.values() for tag in patterns]
    assert [tag for tag in tags if not any(re.match(tag, name) for name in LOGGED)] == []


def test_layout_arrives_in_the_custom_scalars_plugin(tmp_path: Path) -> None:
    TensorBoardWriter(tmp_path).close()
    (event,) = read(tmp_path).Tensors("custom_scalars__config__")
    layout = Layout()
    layout.ParseFromString(event.tensor_proto.string_val[0])
    assert [category.title for category in layout.category] == list(CHARTS)
    assert {chart.title for category in layout.category for chart in category.chart} == {
        title for charts in CHARTS.values() for title in charts
    }


def test_settings_arrive_as_a_session_that_ends_when_the_run_does(tmp_path: Path) -> None:
    writer = MetricWriter(tmp_path)
    writer.describe(
        {"optim.lr": 1e-4, "optim.betas": [0.9, 0.999], "model.vlm": None, "on": True}, {"recipe": "a: 1"}, 0
    )
    writer.flush()
    before = read(tmp_path / "tensorboard").PluginTagToContent("hparams")
    writer.finish()
    writer.close()
    events = read(tmp_path / "tensorboard")
    after = events.PluginTagToContent("hparams")

    assert set(before) == {metadata.SESSION_START_INFO_TAG}  # no fixed columns: TensorBoard takes those of all runs
    assert set(after) == {metadata.SESSION_START_INFO_TAG, metadata.SESSION_END_INFO_TAG}
    values = metadata.parse_session_start_info_plugin_data(after[metadata.SESSION_START_INFO_TAG]).hparams
    assert values["optim.lr"].number_value == 1e-4
    assert [values[name].string_value for name in ("optim.betas", "model.vlm", "on")] == [
        "[0.9, 0.999]",
        "null",
        "true",
    ]
    (text,) = events.Tensors("recipe/text_summary")
    assert text.tensor_proto.string_val[0] == b"```\na: 1\n```"


def test_a_video_arrives_as_a_moving_picture(tmp_path: Path) -> None:
    frames = [np.full((16, 32, 3), shade, np.uint8) for shade in (10, 120, 240)]
    writer = TensorBoardWriter(tmp_path)
    writer.video("trial/t00-i00", frames, step=40, frames_per_second=4.0)
    writer.close()

    (event,) = read(tmp_path).Images("trial/t00-i00")
    picture = Image.open(io.BytesIO(event.encoded_image_string))
    assert (event.step, event.width, event.height) == (40, 32, 16)
    assert (picture.format, picture.n_frames, picture.info["duration"]) == ("GIF", 3, 250)


def test_curves_do_not_fold_back_after_a_resume(tmp_path: Path) -> None:
    write_steps(tmp_path, 1, 2, 3, 4)
    write_steps(tmp_path, 3, 4, 5, resume_step=2)
    assert steps_of(tmp_path / "tensorboard", "loss") == [1, 2, 3, 4, 5]


def test_event_files_keep_their_order_when_a_process_starts_many_times_within_a_second(tmp_path: Path) -> None:
    for step in range(1, 13):  # the counter in the names passes from 9 to 10, whose texts are in the other order
        write_steps(tmp_path, step, resume_step=step - 1)
    assert steps_of(tmp_path / "tensorboard", "loss") == list(range(1, 13))


def test_curves_do_not_fold_back_when_the_clock_of_the_new_host_is_behind(tmp_path: Path) -> None:
    write_steps(tmp_path, 1, 2, 3, 4)
    (first,) = (tmp_path / "tensorboard").iterdir()
    ahead = int(time.time()) + 3600
    first.rename(first.with_name(re.sub(r"tfevents\.\d+", f"tfevents.{ahead}", first.name)))
    write_steps(tmp_path, 3, 4, 5, resume_step=2)
    write_steps(tmp_path, 5, 6, resume_step=4)
    assert steps_of(tmp_path / "tensorboard", "loss") == [1, 2, 3, 4, 5, 6]


def test_a_killed_writer_loses_no_line_that_was_written(tmp_path: Path) -> None:
    writer = MetricWriter(tmp_path)
    for step in (1, 2, 3):
        writer.write({"step": step, "loss": 0.5})
    assert steps_of(tmp_path / "tensorboard", "loss") == [1, 2, 3]  # not closed: as after SIGKILL
    writer.close()


@pytest.mark.parametrize("value", [None, "text", True])
def test_what_is_no_number_makes_no_curve(tmp_path: Path, value: object) -> None:
    writer = TensorBoardWriter(tmp_path)
    writer.scalars({"loss": 1.0, "odd": value}, 1)
    writer.close()
    assert read(tmp_path).Tags()["scalars"] == ["loss"]
