"""Explains an episode from its source to its pictures: the work of `pokevla explain`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pokevla.errors import UsageError
from pokevla.evaluation.drawing.videos import write_video
from pokevla.evaluation.explaining.maps import look_at
from pokevla.evaluation.explaining.moments import Scene, SimulatedTrial, simulated_scene, stored_scene
from pokevla.evaluation.explaining.sheets import Story, draw_frame, draw_strip, overlap
from pokevla.files.labels import printable
from pokevla.files.writing import atomic_path
from pokevla.policy.policy import Policy
from pokevla.recipe.sections import TeacherConfig
from pokevla.runs.directory import holds_recipe, read_run_recipe
from pokevla.teachers.teacher import Teacher, build_teacher

FOLDER = "explain"
"""In a run directory: the pictures, unless another place is named."""
WITHOUT_MASKS = "Draw its attention alone: add --no-masks."


@dataclass(frozen=True)
class StoredEpisode:
    """An episode of a dataset to explain."""

    dataset: Path
    episode: int
    every: int = 4


@dataclass(frozen=True)
class Drawn:
    """What has been drawn."""

    strip: Path
    video: Path
    moments: int
    mask_iou: float | None
    """Mean over moments and views; None without masks or without true ones."""


def explain_episode(
    run: Path,
    source: StoredEpisode | SimulatedTrial,
    out: Path | None = None,
    *,
    masks: bool = True,
    pictures: int = 5,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Drawn:
    """Draw what the policy of `run` looks at in an episode: OUT/NAME.png and OUT/NAME.mp4.

    Args:
        run: a run directory of post-training; without `masks` an exported model will do.
        out: None: `RUN/explain`.
        pictures: moments in the strip. The video has all of them.

    Raises:
        UsageError: the run has no mask decoders to show, or the source is not there or of another robot.
        CheckpointError, DataError, SimulationError: from the policy, its teacher, the dataset or the simulator.
    """
    folder = out or _own_folder(run)
    teacher_config = _mask_teacher(run) if masks else None
    policy = Policy.from_pretrained(run)
    if not isinstance(policy, Policy):  # an imported OpenVLA-OFT or VLA-Adapter
        raise UsageError(f"{run} is a policy of another project: its attention cannot be drawn.", "Name a run of ours.")
    if not policy.needs_images:
        raise UsageError(f"{run} was trained on blank images: there is nothing to look at.")
    scene = _scene(source, policy, run)
    device = policy.model.seg_token.device
    sam = None if teacher_config is None else build_teacher(teacher_config, device)
    story = _look(policy, sam, scene, printable(run.resolve().name), on_progress)
    strip, video = folder / f"{scene.name}.png", folder / f"{scene.name}.mp4"
    with atomic_path(strip) as temporary:
        draw_strip(story, pictures).save(temporary, format="PNG", optimize=True)
    scales = story.scales()
    frames = [draw_frame(story, number, scales) for number in range(len(story.looks))]
    write_video(video, frames, _frames_per_s(story))
    ious = [iou for look in story.looks for iou in overlap(look)]
    return Drawn(strip, video, len(story.looks), float(np.mean(ious)) if ious else None)


def _look(
    policy: Policy, sam: Teacher | None, scene: Scene, name: str, on_progress: Callable[[int, int], None]
) -> Story:
    looks = []
    for done, moment in enumerate(scene.moments, start=1):
        explanation = policy.explain(moment.images[None], moment.proprio[None], [scene.instruction], sam)
        looks.append(look_at(moment, explanation))
        on_progress(done, len(scene.moments))
    return Story(scene, looks, name)


def _scene(source: StoredEpisode | SimulatedTrial, policy: Policy, run: Path) -> Scene:
    if isinstance(source, StoredEpisode):
        return stored_scene(source.dataset, source.episode, source.every, policy.embodiment)
    extensions = read_run_recipe(run).extensions if holds_recipe(run) else ()
    return simulated_scene(source, policy, extensions)


def _own_folder(run: Path) -> Path:
    if not holds_recipe(run):
        raise UsageError(f"{run} is not a run directory.", "Say where the pictures go: --out FOLDER.")
    return run / FOLDER


def _mask_teacher(run: Path) -> TeacherConfig:
    """The SAM teacher whose features the mask decoders of a run were trained on."""
    if not holds_recipe(run):
        raise UsageError(f"{run} has no recipe, which names the SAM teacher of its masks.", WITHOUT_MASKS)
    recipe = read_run_recipe(run)
    if recipe.feature_cache is None or recipe.feature_cache.sam is None or not recipe.supervises_masks:
        raise UsageError(f"{run} has trained no mask decoders (loss.segmentation.weight is 0).", WITHOUT_MASKS)
    return recipe.feature_cache.sam


def _frames_per_s(story: Story) -> float:
    """Frames per second at which the video runs at the speed of the real robot."""
    steps = [look.moment.step for look in story.looks]
    between = float(np.median(np.diff(steps))) if len(steps) > 1 else 1.0
    return story.scene.embodiment.control_rate_hz / between
