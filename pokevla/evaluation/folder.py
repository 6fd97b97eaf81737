"""The directory of an evaluation: whether it is one, and what of it may be deleted."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from pokevla.errors import UsageError
from pokevla.files.names import TEMPORARY
from pokevla.files.ownership import foreign_entry, refuse_foreign
from pokevla.recipe.schema import EvalRecipe, GroundingRecipe
from pokevla.runs.directory import CHECKPOINTS, RECIPE, refuse_overlapping_output, run_directory
from pokevla.telemetry.tensorboard import TENSORBOARD

IDENTITY, SUMMARY, EPISODES, ANSWERS = "identity.json", "summary.json", "episodes.jsonl", "answers.jsonl"
VIDEOS, PICTURES, OBSERVATIONS = "videos", "pictures", "observations"
_PROOFS = (IDENTITY, ANSWERS, RECIPE)
"""One of these is in every evaluation that has begun or was submitted."""
_LEFTOVERS = f"{TEMPORARY}*/**"
_PARTS = {
    VIDEOS: ("*-t*-i*.mp4", _LEFTOVERS),
    PICTURES: ("*.png", _LEFTOVERS),
    OBSERVATIONS: ("*-t*-i*.jpg", _LEFTOVERS),
    TENSORBOARD: ("**events.out.tfevents.*",),
}
"""Sub-folders -> what we write there."""


def refuse_other_folder(recipe: EvalRecipe | GroundingRecipe) -> None:
    """Refuse to evaluate into a directory `output/name` that belongs to something else.

    Raises:
        UsageError: it overlaps what the recipe reads, is a run, or holds files of our names that are not ours.
    """
    folder = run_directory(recipe)
    refuse_overlapping_output(recipe)
    taken = (folder / CHECKPOINTS).exists()
    if not taken and not any((folder / name).is_file() for name in _PROOFS):
        files = any((folder / name).exists() for name in (SUMMARY, EPISODES))
        taken = files or any((folder / name).is_dir() and foreign_entry(folder / name, ()) for name in _PARTS)
    if taken:
        raise UsageError(f"{folder} exists and is not an evaluation.", "Give the evaluation another name: name=...")


def clear(folder: Path, names: Sequence[str]) -> None:
    """Delete files and sub-folders of an evaluation that starts over.

    Raises:
        UsageError: something else lies in one of the sub-folders. Nothing is deleted then.
    """
    for name in names:
        if (folder / name).is_dir():
            refuse_foreign(folder / name, "evaluation", _PARTS[name], kind=UsageError)
    for name in names:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
