"""TensorBoard: scalars with a layout of their own, settings, texts and videos.

Heavy imports are inside: torch takes a second, and a process that only reads logs needs none of it.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

TENSORBOARD = "tensorboard"
"""Folder of the event files, in the directory of a run or an evaluation."""
LAYOUT: dict[str, dict[str, list[str]]] = {
    "losses": {
        "loss": [r"loss$"],
        "losses by part": [r"loss/.*"],
        "held-out samples": [r"val/loss$", r"val/loss/.*"],
        "held-out: own and swapped images": [r"val/loss/action$", r"val_swapped/loss/action$"],
    },
    "learning": {
        "learning rate, as applied": [r"lr$"],
        "gradient norm": [r"grad_norm$"],
        "gradient norm of each loss": [r"grad_norm/.*"],
    },
    "speed": {
        "samples per second": [r"samples_per_s$"],
        "seconds per step": [r"step_s$", r"step_s/.*"],
        "TFLOP/s of a rank": [r"tflops_per_rank$"],
        "model FLOPs utilisation": [r"mfu$"],
    },
    "data wait": {"share of time waiting for data": [r"data_wait_share$"]},
    "memory": {
        "memory of rank 0 (GiB)": [r"rss_gib$"],
        "memory of its GPU (GiB)": [r"gpu_memory_gib$"],
    },
    "health": {
        "skipped steps": [r"skipped$"],
        "seconds a save held training up": [r"save_blocked_s$"],
        "GPU utilisation": [r"gpu_utilisation$"],
        "GPU power (W)": [r"gpu_power_w$"],
    },
    "evaluation": {
        "success rate, with its 95 % interval": [r"success_rate/.*"],
        "mask IoU": [r"mask_iou$"],
        "points inside the mask": [r"point_accuracy/.*"],
    },
}
"""Page "custom scalars": category -> chart -> tags, as regular expressions that must match from the start of a tag."""

SECONDS_BETWEEN_FLUSHES = 10
_EVENT_FILE = re.compile(r"events\.out\.tfevents\.(\d+)(\..*)")


class TensorBoardWriter:
    """What a run or an evaluation shows in TensorBoard. One writer per folder at a time.

    A folder has one writing process for its whole life: TensorBoard leaves an event file for good once a later one
    has appeared beside it, so whoever writes while a run goes on (an evaluation) takes a folder of its own.
    """

    def __init__(self, folder: Path, resume_step: int | None = None) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        _put_earlier_files_before_now(folder)
        # Events at or after purge_step that an earlier process wrote are hidden.
        purge_step = None if resume_step is None else resume_step + 1
        self._writer = SummaryWriter(str(folder), purge_step=purge_step, flush_secs=SECONDS_BETWEEN_FLUSHES)
        self._writer.add_custom_scalars(
            {group: {title: ["Multiline", tags] for title, tags in charts.items()} for group, charts in LAYOUT.items()}
        )

    def scalars(self, values: Mapping[str, Any], step: int) -> None:
        """Write every number of `values` at `step`; what is not a number is left out."""
        for name, value in values.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._writer.add_scalar(name, value, step)

    def text(self, name: str, text: str, step: int = 0) -> None:
        """Write a text as a code block (the manifest, the recipe)."""
        self._writer.add_text(name, "```\n" + text + "\n```", step)

    def video(self, name: str, frames: Sequence[np.ndarray], step: int, frames_per_second: float) -> None:
        """Write a moving picture, frames (H, W, 3) uint8. It appears under "images": TensorBoard plays GIFs only."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        height, width = frames[0].shape[:2]
        picture = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=_gif(frames, frames_per_second)
        )
        self._summary(Summary(value=[Summary.Value(tag=name, image=picture)]), step)

    def settings(self, settings: Mapping[str, Any]) -> None:
        """Write the settings of this run for the page "hparams"; its columns of figures are the scalars' last values.

        The summary that would fix the columns is left out on purpose: TensorBoard takes that of the first run for all
        runs (backend_context.py, _find_experiment_tag), and without any it takes the union over all of them.
        """
        from torch.utils.tensorboard.summary import hparams

        _, start, _ = hparams({name: _plain(value) for name, value in settings.items()}, {})
        self._summary(start, 0)

    def finished(self) -> None:
        """Say on the page "hparams" that the run has come to its end."""
        from torch.utils.tensorboard.summary import hparams

        _, _, end = hparams({}, {})
        self._summary(end, 0)

    def _summary(self, summary: Any, step: int) -> None:
        writer = self._writer.file_writer
        if writer is None:
            raise RuntimeError("This TensorBoardWriter is closed.")
        writer.add_summary(summary, step)

    def flush(self) -> None:
        """Hand everything to the system: a killed process loses nothing that was flushed."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class TensorBoardSink:
    """A `MetricSink` (pokevla.telemetry.writers): the folder `tensorboard` of a training run."""

    def __init__(self, run_dir: Path, resume_step: int | None = None) -> None:
        self._writer = TensorBoardWriter(run_dir / TENSORBOARD, resume_step)

    def write(self, values: Mapping[str, Any]) -> None:
        """Write every number of the line."""
        self._writer.scalars({name: value for name, value in values.items() if name != "step"}, values["step"])

    def describe(self, settings: Mapping[str, Any], texts: Mapping[str, str], step: int) -> None:
        """Write settings and texts for the pages "hparams" and "text"."""
        self._writer.settings(settings)
        for name, text in texts.items():
            self._writer.text(name, text, step)

    def flush(self) -> None:
        """Hand over what TensorBoard's writer holds back."""
        self._writer.flush()

    def finish(self) -> None:
        """Say on the page "hparams" that the run has come to its end."""
        self._writer.finished()

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


def _put_earlier_files_before_now(folder: Path) -> None:
    """Rename event files so that all are from before this second, in the same order, and no two from the same one.

    TensorBoard reads a folder's files in the order of their names, which begin with the time of their making. A run
    that resumes on a host whose clock is behind would be read before what it continues, and its curves fold back.
    """
    files = [(int(match[1]), match[2], path) for path in folder.glob("events.out.tfevents.*")
             if (match := _EVENT_FILE.fullmatch(path.name))]  # fmt: skip
    limit = int(time.time())
    for made, rest, path in sorted(files, reverse=True):
        limit = min(made, limit - 1)
        if limit != made:
            os.rename(path, path.with_name(f"events.out.tfevents.{limit:010d}{rest}"))


def _plain(value: Any) -> str | int | float:
    """Numbers and texts as they are, everything else as JSON (torch would turn booleans into 0 and 1)."""
    if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    return json.dumps(value)


def _gif(frames: Sequence[np.ndarray], frames_per_second: float) -> bytes:
    import io

    from PIL import Image

    first, *others = [Image.fromarray(frame).quantize(256) for frame in frames]
    buffer = io.BytesIO()
    duration_ms = round(1000 / frames_per_second)
    first.save(buffer, format="GIF", save_all=True, append_images=others, duration=duration_ms, loop=0)
    return buffer.getvalue()
