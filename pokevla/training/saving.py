"""When and how a run saves: blocking or in the background, failed saves, pruning, healthy checkpoints."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pokevla.checkpoint.background import PendingCheckpoint, save_in_background
from pokevla.checkpoint.staging import StagingBuffer
from pokevla.checkpoint.store import save_checkpoint
from pokevla.errors import CheckpointError, DiskFullError
from pokevla.recipe.running import CheckpointConfig
from pokevla.runs.checkpoints import (
    CheckpointInfo,
    apply_retention,
    checkpoint_folder,
    is_healthy,
    list_checkpoints,
    mark_healthy,
)
from pokevla.telemetry.jsonl import EventLog
from pokevla.telemetry.meters import GIB, StepMeter
from pokevla.telemetry.writers import MetricWriter
from pokevla.training.callbacks import StepResult
from pokevla.training.health.pulse import Pulse

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

logger = logging.getLogger(__name__)


@dataclass
class Saver:
    """Saves the engine's state. All methods are called by all ranks, at the same steps."""

    engine: DeepSpeedEngine
    run_dir: Path
    settings: CheckpointConfig
    checkpoint_info: Callable[[int, int], CheckpointInfo]  # (step, position) -> description of the checkpoint
    writer: MetricWriter | None = None  # flushed before a save
    events: EventLog | None = None  # rank 0 only
    blocked_s: float = field(default=0.0, init=False)
    """Seconds for which the last save blocked the loop."""
    _snapshot: StagingBuffer = field(default_factory=StagingBuffer, init=False)
    _pending: PendingCheckpoint | None = field(default=None, init=False)
    _failures: int = field(default=0, init=False)  # in a row

    @property
    def is_main(self) -> bool:
        """Whether this rank writes the files that exist once per run."""
        return self.engine.global_rank == 0

    def save(self, result: StepResult, *, wait: bool, last_chance: bool = False) -> bool:
        """Save the state after a step and return whether that succeeded. Blocks the loop.

        With `wait`, returns when the checkpoint is complete on disk. Without it, and if the recipe says so, a thread
        writes it while training continues; `look_after` completes it.

        Raises:
            DiskFullError, CheckpointError: the save failed, and the recipe's limit of consecutive failures is reached,
                or this is the last step of the run, or the `last_chance` of a job that has to stop.
        """
        started = time.perf_counter()
        self.complete_pending(result)
        if self.writer is not None:
            self.writer.flush()  # a run killed later resumes from here, so its metrics must reach this step
        info = self.checkpoint_info(result.step, result.position)
        try:
            if wait or not self.settings.background:
                info = save_checkpoint(self.engine, self.run_dir, info)
            else:
                self._pending = save_in_background(self.engine, self.run_dir, info, self._snapshot)
        except (DiskFullError, CheckpointError) as error:
            self._note_failure(error, result, last_chance=last_chance)
            return False
        finally:
            self.blocked_s = time.perf_counter() - started
        if self._pending is None:
            self._note_success(info, self.blocked_s)
        return True

    def look_after(self, result: StepResult) -> None:
        """Complete a checkpoint that the threads have written. Called after every step; free if none is pending."""
        if self._pending is not None and self._pending.is_written():
            self.complete_pending(result)

    def complete_pending(self, result: StepResult, *, last_chance: bool = False) -> None:
        """Wait for the threads and complete the pending checkpoint, if any. Raises the same errors as `save`."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            info = pending.finish()
        except (DiskFullError, CheckpointError) as error:
            self._note_failure(error, result, last_chance=last_chance)
        else:
            self._note_success(info, self.blocked_s + pending.written_s)

    def _note_success(self, info: CheckpointInfo, save_s: float) -> None:
        """`save_s` is the time from the end of the step until the checkpoint is on disk. A job that has to stop waits
        this long."""
        self._failures = 0
        folder = checkpoint_folder(self.run_dir, info.step)
        logger.info("saved %s (%.3f GiB, %.2f s blocked)", folder, info.size_bytes / GIB, self.blocked_s)
        if not self.is_main:
            return
        deleted = self._delete_old(info.step)
        if self.events is not None:
            self.events.add(
                "saved",
                step=info.step,
                position=info.position,
                save_s=round(save_s, 3),
                blocked_s=round(self.blocked_s, 3),
                size_bytes=info.size_bytes,
                deleted=deleted,
            )

    def _delete_old(self, saved_step: int) -> list[int]:
        """Steps of the deleted checkpoints. One that cannot be deleted costs space, not the run."""
        try:
            return apply_retention(self.run_dir, saved_step, self.settings.keep_last, self.settings.keep_every_steps)
        except (OSError, CheckpointError) as error:
            logger.warning("old checkpoints are not deleted: %s", error)
            return []

    def _note_failure(self, error: DiskFullError | CheckpointError, result: StepResult, *, last_chance: bool) -> None:
        """Log the error and let the run continue, or raise."""
        self._failures += 1
        final = last_chance or result.is_last or self._failures >= self.settings.max_failed_saves
        outcome = "the run ends" if final else "training continues, the previous checkpoint remains"
        logger.error("save failed (%d in a row), %s: %s", self._failures, outcome, error)
        if self.events is not None:
            self.events.add("save_failed", step=result.step, in_a_row=self._failures, message=str(error))
        if final:
            raise error


@dataclass
class SaveWhenDue:
    """Callback: saves at the interval of the recipe and after the last step."""

    saver: Saver
    writer: MetricWriter
    meter: StepMeter
    pulse: Pulse
    _saved_at: int | None = field(default=None, init=False)

    def after_step(self, result: StepResult) -> None:
        """Save when due, and complete a pending background save."""
        self.saver.look_after(result)
        if result.is_last or result.step % self.saver.settings.every_steps == 0:
            self._act(result, wait=result.is_last)

    def before_leaving(self, result: StepResult) -> None:
        """Save the state after this step unless it is already saved, and wait until it is complete. Raises the same
        errors as `Saver.save`."""
        if self._saved_at == result.step:
            self.saver.complete_pending(result, last_chance=True)
        else:
            self._act(result, wait=True, last_chance=True)

    def _act(self, result: StepResult, *, wait: bool, last_chance: bool = False) -> None:
        with self.pulse.phase("save", patient=True):
            saved = self.saver.save(result, wait=wait, last_chance=last_chance)
        if saved:
            self._saved_at = result.step
            self.writer.write(
                {"step": result.step, "position": result.position, "save_blocked_s": round(self.saver.blocked_s, 3)}
            )
        self.meter.restart()  # saving does not count as training time


@dataclass
class HealthWatch:
    """Callback of rank 0: marks a checkpoint as healthy once enough steps followed it without a skipped one."""

    run_dir: Path
    after_steps: int
    _streak: int = field(default=0, init=False)  # consecutive finite steps

    def after_step(self, result: StepResult) -> None:
        """Count finite steps and mark newly healthy checkpoints. The directory is read only once per `after_steps`
        steps."""
        self._streak = self._streak + 1 if result.grad_norm is not None else 0
        if self._streak == 0 or self._streak % self.after_steps:
            return
        for step, folder in list_checkpoints(self.run_dir):
            if step + self.after_steps <= result.step and not is_healthy(folder):
                try:
                    mark_healthy(folder, result.step)
                except (DiskFullError, CheckpointError) as error:
                    logger.warning("%s is healthy, but that cannot be noted: %s", folder, error)
