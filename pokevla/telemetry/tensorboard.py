"""TensorBoard: scalars, charts, settings, texts and videos.

torch is imported inside functions: it takes a second to import, and a process that only reads logs does not need it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pokevla.files.failures import free_bytes

if TYPE_CHECKING:
    import numpy as np

TENSORBOARD = "tensorboard"
"""Folder of the event files, in the directory of a run or an evaluation."""
CHARTS: dict[str, dict[str, list[str]]] = {
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
"""Page "custom scalars": category -> chart -> tags, as regular expressions that match from the start of a tag."""

SECONDS_BETWEEN_FLUSHES = 10
ROOM_BYTES = 1 << 20
"""Free space from which a new event file is begun after the disk was full."""
_EVENT_FILE = re.compile(r"events\.out\.tfevents\.(\d+)(\..*)")


class TensorBoardWriter:
    """Writes the event files of a run or an evaluation. One writer per folder at a time.

    TensorBoard stops reading an event file once a later one appears beside it. So a process that writes while a run is
    still going (an evaluation) needs a folder of its own.
    """

    def __init__(self, folder: Path, resume_step: int | None = None) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        _put_earlier_files_before_now(folder)
        # Events at or after purge_step that an earlier process wrote are hidden.
        purge_step = None if resume_step is None else resume_step + 1
        self._writer = SummaryWriter(str(folder), purge_step=purge_step, flush_secs=SECONDS_BETWEEN_FLUSHES)
        self._writer.add_custom_scalars(
            {group: {title: ["Multiline", tags] for title, tags in charts.items()} for group, charts in CHARTS.items()}
        )

    def scalars(self, values: Mapping[str, Any], step: int) -> None:
        """Write every number of `values` at `step`; other values are skipped."""
        for name, value in values.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._writer.add_scalar(name, value, step)

    def text(self, name: str, text: str, step: int = 0) -> None:
        """Write a text (manifest, recipe) as a code block."""
        self._writer.add_text(name, "```\n" + text + "\n```", step)

    def video(self, name: str, frames: Sequence[np.ndarray], step: int, frames_per_second: float) -> None:
        """Write a video, frames (H, W, 3) uint8, as a GIF under "images": TensorBoard plays no other format."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        height, width = frames[0].shape[:2]
        image = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=_gif(frames, frames_per_second)
        )
        self._summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)

    def settings(self, settings: Mapping[str, Any]) -> None:
        """Write the settings of this run for the page "hparams", whose metric columns are the scalars' last values.

        The summary that would define the columns is omitted on purpose: TensorBoard would use that of the first run for
        all runs (backend_context.py, _find_experiment_tag); without it, it uses the union over all runs.
        """
        from torch.utils.tensorboard.summary import hparams

        _, start, _ = hparams({name: _plain(value) for name, value in settings.items()}, {})
        self._summary(start, 0)

    def finished(self) -> None:
        """Mark the run as finished on the page "hparams"."""
        from torch.utils.tensorboard.summary import hparams

        _, _, end = hparams({}, {})
        self._summary(end, 0)

    def _summary(self, summary: Any, step: int) -> None:
        writer = self._writer.file_writer
        if writer is None:
            raise RuntimeError("This TensorBoardWriter is closed.")
        writer.add_summary(summary, step)

    def flush(self) -> None:
        """Flush to the operating system: a killed process loses nothing that was flushed."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class TensorBoardSink:
    """A `MetricSink` (pokevla.telemetry.writers): the folder `tensorboard` of a training run.

    After a failed write the event file may end within a record, which TensorBoard cannot read past. So the sink gives
    this file up, raises OSError, and begins a new one once there is room; the curves have a gap, `metrics.jsonl` has
    not.
    """

    def __init__(self, run_dir: Path, resume_step: int | None = None) -> None:
        self._folder = run_dir / TENSORBOARD
        self._open: TensorBoardWriter | None = TensorBoardWriter(self._folder, resume_step)

    def write(self, values: Mapping[str, Any]) -> None:
        """Write every number of the line."""
        with self._writer() as writer:
            writer.scalars({name: value for name, value in values.items() if name != "step"}, values["step"])

    def describe(self, settings: Mapping[str, Any], texts: Mapping[str, str], step: int) -> None:
        """Write settings and texts for the pages "hparams" and "text"."""
        with self._writer() as writer:
            writer.settings(settings)
            for name, text in texts.items():
                writer.text(name, text, step)

    def flush(self) -> None:
        """Hand over what TensorBoard's writer holds back."""
        with self._writer() as writer:
            writer.flush()

    def finish(self) -> None:
        """Say on the page "hparams" that the run has come to its end."""
        with self._writer() as writer:
            writer.finished()

    def close(self) -> None:
        """Flush and close."""
        if self._open is not None:
            self._open.close()

    @contextmanager
    def _writer(self) -> Iterator[TensorBoardWriter]:
        if self._open is None and free_bytes(self._folder) < ROOM_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
        try:
            self._open = self._open or TensorBoardWriter(self._folder)
            yield self._open
        except OSError:
            self._open = None
            raise


def _put_earlier_files_before_now(folder: Path) -> None:
    """Rename event files so that their time stamps are in the past and distinct, in the same order.

    TensorBoard reads the files of a folder in the order of their names, which begin with their creation time. If a run
    resumed on a host whose clock is behind, its file would be read before the one it continues, and curves fold back.
    """
    files = [(int(match[1]), match[2], path) for path in folder.glob("events.out.tfevents.*")
             if (match := _EVENT_FILE.fullmatch(path.name))]  # fmt: skip
    limit = int(time.time())
    for made, rest, path in sorted(files, reverse=True):
        limit = min(made, limit - 1)
        if limit != made:
            os.rename(path, path.with_name(f"events.out.tfevents.{limit:010d}{rest}"))


def _plain(value: Any) -> str | int | float:
    """Numbers and strings unchanged, everything else as JSON (torch would turn booleans into 0 and 1)."""
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
