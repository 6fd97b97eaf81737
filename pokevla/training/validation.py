"""Losses on held-out batches, at the interval of the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from pokevla.data.batch import swap_images
from pokevla.distributed.collectives import mean_over_ranks
from pokevla.telemetry.meters import StepMeter
from pokevla.telemetry.writers import MetricWriter
from pokevla.training.callbacks import StepResult
from pokevla.training.health.pulse import Pulse

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


@dataclass
class Validation:
    """Callback: writes the mean of each loss over fixed held-out batches, and again with images of other samples.

    The difference measures how much the model uses its images. The result does not affect training.
    """

    engine: DeepSpeedEngine
    device: torch.device
    batches: Sequence[Any]  # this rank's micro-batches
    every_steps: int
    writer: MetricWriter
    meter: StepMeter
    pulse: Pulse

    def after_step(self, result: StepResult) -> None:
        """Validate when due and after the last step. Validation does not count as training time."""
        if not (result.is_last or result.step % self.every_steps == 0):
            return
        with self.pulse.phase("validate", patient=True):
            line = self.mean_losses("val", self.batches)
            line |= self.mean_losses("val_swapped", [swap_images(batch) for batch in self.batches])
            self.writer.write({"step": result.step, "position": result.position, **line})
        self.meter.restart()

    @torch.no_grad()
    def mean_losses(self, prefix: str, batches: Sequence[Any]) -> dict[str, float]:
        """Mean of each logged value over `batches` of all ranks, without dropout: {"prefix/name": mean}."""
        self.engine.eval()
        logged = [self.engine(batch.to(self.device))[1] for batch in batches]
        self.engine.train()
        names = list(logged[0])
        sums = torch.stack([torch.stack([values[name].double() for name in names]) for values in logged]).mean(0)
        return {f"{prefix}/{name}": mean for name, mean in zip(names, mean_over_ranks(sums).tolist(), strict=True)}
