"""Records a trial as it runs: a video of what the policy saw and answered, and a sheet of masks and actions."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pokevla.embodiment.description import Embodiment
from pokevla.errors import DiskFullError
from pokevla.evaluation.drawing.actions import ActionBounds, action_panels
from pokevla.evaluation.drawing.frames import FrameTexts, Seen, draw_frame
from pokevla.evaluation.drawing.sheets import CELL, Glimpse, TrialStory, draw_sheet
from pokevla.evaluation.drawing.videos import trial_name, write_video
from pokevla.evaluation.folder import PICTURES, VIDEOS
from pokevla.evaluation.running.messages import Query
from pokevla.evaluation.running.watching import Ending, Watched
from pokevla.evaluation.trials import Trial
from pokevla.files.writing import atomic_path
from pokevla.policy.pictures import draw_views, mask_iou

logger = logging.getLogger(__name__)

MaskPredictor = Callable[[np.ndarray, np.ndarray, str], np.ndarray]
"""(images (V, H, W, 3), proprio (P,), instruction) -> predicted masks (V, H, W) bool."""
OUTCOME_S = 1.5
"""How long a video stays on the outcome."""


@dataclass(frozen=True)
class Filming:
    """How the trials of a policy are recorded."""

    robot: Embodiment
    actions_per_query: int
    """Executed of each chunk."""
    predict_masks: MaskPredictor | None = None
    """None for policies without masks."""
    bounds: ActionBounds | None = None
    """Scale of the actions."""

    @property
    def queries_per_s(self) -> float:
        """How often the robot queries its policy: the frame rate at which a video plays at real speed."""
        return self.robot.control_rate_hz / self.actions_per_query


class TrialRecorder:
    """A `TrialWatcher` that writes `videos/NAME.mp4` and `pictures/NAME.png` in the folder of an evaluation."""

    wants_masks = True

    def __init__(self, folder: Path, trial: Trial, filming: Filming) -> None:
        self._folder, self._trial, self._filming = folder, trial, filming
        self._name = trial_name(trial.key)
        self._panels = tuple(action_panels(filming.robot, filming.bounds))
        self._texts: FrameTexts | None = None
        self._frames: list[np.ndarray] = []
        self._last: Seen | None = None
        self._glimpses: list[Glimpse] = []
        self._chunks: list[tuple[int, np.ndarray]] = []

    def see(self, query: Query, chunk: np.ndarray | None) -> None:
        """Draw one observation, and the actions (K, A) that it was answered with."""
        if query.images is None:
            return
        seen = self._seen(query, query.images, chunk)
        views = draw_views(seen.images, seen.predicted, seen.true, CELL)
        self._glimpses.append(Glimpse(seen.step, tuple(views), seen.ious))
        if chunk is not None:
            self._chunks.append((seen.step, chunk[: self._filming.actions_per_query]))
        self._texts = self._texts or self._texts_of(query.instruction)
        self._frames.append(draw_frame(self._texts, seen))
        self._last = seen

    def finish(self, ending: Ending) -> Watched:
        """Write both files, the outcome on the last frames of the video.

        Returns the video's path relative to the folder, and the mean overlap of the masks.

        On a full disk the trial counts all the same, without them, and the log says so.

        Raises:
            DataError: writing failed otherwise.
        """
        if self._last is None or self._texts is None:
            return {}
        ious = [iou for glimpse in self._glimpses for iou in glimpse.ious if iou is not None]
        mean = float(np.mean(ious)) if ious else None
        try:
            return {"video": self._write(self._texts, self._last, ending), "mask_iou": mean}
        except DiskFullError as error:
            logger.warning("the video of %s is left out: %s", self._name, error)
            return {"mask_iou": mean}

    def _seen(self, query: Query, images: np.ndarray, chunk: np.ndarray | None) -> Seen:
        true = None if query.masks is None else query.masks.astype(bool)
        predicted, ious = None, ()
        if self._filming.predict_masks is not None:
            predicted = self._filming.predict_masks(images, query.proprio, query.instruction)
            if true is not None:
                ious = tuple(mask_iou(ours, theirs) for ours, theirs in zip(predicted, true, strict=True))
        return Seen(query.step, images, predicted, true, ious, chunk)

    def _texts_of(self, instruction: str) -> FrameTexts:
        return FrameTexts(
            instruction=instruction,
            note=_note(self._trial),
            views=self._filming.robot.views,
            panels=self._panels,
            max_steps=self._trial.max_steps,
            actions_per_query=self._filming.actions_per_query,
        )

    def _write(self, texts: FrameTexts, last: Seen, ending: Ending) -> str:
        rate = self._filming.queries_per_s
        outcome = draw_frame(texts, last, ending)
        # A trial that crashed has no last observation: its outcome follows what the policy saw last.
        before = self._frames if ending.outcome == "crashed" else self._frames[:-1]
        video = self._folder / VIDEOS / f"{self._name}.mp4"
        write_video(video, [*before, *[outcome] * max(1, round(OUTCOME_S * rate))], rate)
        story = TrialStory(
            instruction=texts.instruction,
            note=texts.note,
            view_names=texts.views,
            glimpses=self._glimpses,
            actions=self._executed(ending.steps),
            panels=self._panels,
            control_rate_hz=self._filming.robot.control_rate_hz,
            ending=ending,
        )
        with atomic_path(self._folder / PICTURES / f"{self._name}.png") as temporary:
            draw_sheet(story).save(temporary, format="PNG", optimize=True)
        return str(video.relative_to(self._folder))

    def _executed(self, steps: int) -> list[tuple[float, np.ndarray]]:
        """Step and action of all that were executed. Of the last chunk only what the trial still needed."""
        every = [(first + number, action) for first, chunk in self._chunks for number, action in enumerate(chunk)]
        return [(float(step), action) for step, action in every if step < steps]


def _note(trial: Trial) -> str:
    return f"{trial.policy}, {trial.suite} task {trial.task_index}, state {trial.init_state_index}"
