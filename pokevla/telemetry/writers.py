"""Where figures go: `metrics.jsonl` always, TensorBoard beside it. Both only on rank 0."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pokevla.telemetry.jsonl import EventLog, JsonlWriter, now, read_jsonl

if TYPE_CHECKING:
    import numpy as np

__all__ = ["EventLog", "JsonlWriter", "MetricWriter", "TensorBoardWriter", "read_jsonl"]

# Charts of TensorBoard's "custom scalars" page: tags are regular expressions.
LAYOUT = {
    "training": {
        "losses": ["Multiline", [r"loss.*"]],
        "gradient norms": ["Multiline", [r"grad_norm.*"]],
        "learning rate": ["Multiline", [r"lr"]],
    },
    "speed": {
        "samples per second": ["Multiline", [r"samples_per_s"]],
        "share of time waiting for data": ["Multiline", [r"data_wait_share"]],
        "memory (GiB)": ["Multiline", [r"rss_gib", r"gpu_.*_gib"]],
    },
}


class TensorBoardWriter:
    """Thin wrapper of torch's SummaryWriter (imported here, not with the module: it takes a second)."""

    def __init__(self, folder: Path, resume_step: int | None = None) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        # Events at or after purge_step that an earlier process wrote are hidden.
        purge_step = None if resume_step is None else resume_step + 1
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)
        self._writer.add_custom_scalars(LAYOUT)

    def scalars(self, values: Mapping[str, Any], step: int) -> None:
        """Write every number of `values` at `step`; what is not a number is left out."""
        for name, value in values.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._writer.add_scalar(name, value, step)

    def text(self, name: str, text: str, step: int = 0) -> None:
        """Write a text as a code block (the manifest, the recipe)."""
        self._writer.add_text(name, "```\n" + text + "\n```", step)

    def image(self, name: str, image: np.ndarray, step: int) -> None:
        """Write one picture, (H, W, 3) uint8."""
        self._writer.add_image(name, image, step, dataformats="HWC")

    def hparams(self, settings: Mapping[str, Any], results: Mapping[str, float]) -> None:
        """Write settings and final figures for TensorBoard's table of runs."""
        plain = {key: value if isinstance(value, int | float | str | bool) else str(value)
                 for key, value in settings.items()}  # fmt: skip
        self._writer.add_hparams(plain, dict(results), run_name=".")

    def flush(self) -> None:
        """Hand everything to the operating system (TensorBoard's writer keeps events back for two minutes)."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class MetricWriter:
    """Metrics of a run: `metrics.jsonl` and `tensorboard/` on rank 0, nothing on the others."""

    def __init__(self, run_dir: Path, rank: int = 0, resume_step: int | None = None, tensorboard: bool = True) -> None:
        self.jsonl = JsonlWriter(run_dir / "metrics.jsonl", resume_step) if rank == 0 else None
        self.tensorboard = (
            TensorBoardWriter(run_dir / "tensorboard", resume_step) if rank == 0 and tensorboard else None
        )

    def write(self, values: Mapping[str, Any]) -> None:
        """Write one line; `values` holds `step`. The time is added."""
        if self.jsonl is not None:
            self.jsonl.write({**values, "time": now()})
        if self.tensorboard is not None:
            self.tensorboard.scalars({name: value for name, value in values.items() if name != "step"}, values["step"])

    def flush(self) -> None:
        """Keep what is written so far even if the process is killed. `metrics.jsonl` needs no help."""
        if self.tensorboard is not None:
            self.tensorboard.flush()

    def close(self) -> None:
        """Close both."""
        for writer in (self.jsonl, self.tensorboard):
            if writer is not None:
                writer.close()
