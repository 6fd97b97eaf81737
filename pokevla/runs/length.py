"""Training a run longer than it was planned: `pokevla resume RUN steps=N`. Without torch.

The learning rate of a step follows from the length. So from the step of the resume on, the rate is that of a run of N
steps: with a decaying schedule it rises to the place that this step has on the longer curve, and decays from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pokevla.errors import PokeVLAError, UsageError
from pokevla.files.failures import naming_errors
from pokevla.files.names import put_in_place
from pokevla.recipe.derive import total_steps
from pokevla.recipe.planning.plan import count_samples
from pokevla.recipe.schema import TrainRecipe
from pokevla.recipe.values import LENGTH
from pokevla.runs.checkpoints import list_checkpoints
from pokevla.runs.directory import EXPORT, is_exported
from pokevla.runs.ending import finished_step


def with_one_length(recipe: TrainRecipe, overrides: Sequence[str]) -> list[str]:
    """The overrides; one that sets `steps` or `epochs` unsets the other field, which the recipe may have used."""
    fields = {override.partition("=")[0].strip() for override in overrides}
    given = [name for name in LENGTH if name in fields]
    others = [name for name in LENGTH if name not in fields and getattr(recipe, name) is not None]
    return [*overrides, *(f"{name}=null" for name in others if given)]


def refuse_short_length(run_dir: Path, before: TrainRecipe, after: TrainRecipe) -> None:
    """Refuse a changed length that the run has already reached.

    Raises:
        UsageError: names both.
    """
    if all(getattr(before, name) == getattr(after, name) for name in LENGTH):
        return
    checkpoints = list_checkpoints(run_dir)
    reached, planned = checkpoints[-1][0] if checkpoints else 0, _planned_steps(after)
    if planned is not None and planned <= reached:
        raise UsageError(
            f"{run_dir} has been trained for {reached} steps: a length of {planned} leaves nothing to train.",
            f"Set steps above {reached}.",
        )


def refuse_finished(run_dir: Path, recipe: TrainRecipe) -> None:
    """Refuse to continue a finished run, unless `recipe` trains it longer.

    Raises:
        UsageError: says how.
    """
    done = finished_step(run_dir)
    if done is not None and not trains_longer(recipe, done):
        raise UsageError(
            f"The run {run_dir} is finished: {done} steps.",
            f"Train it longer: steps=N with N above {done}. Or give this one another name: name=...",
        )


def trains_longer(recipe: TrainRecipe, done: int) -> bool:
    """Whether a recipe has more than `done` steps."""
    planned = _planned_steps(recipe)
    return planned is not None and planned > done


def reopen(run_dir: Path) -> None:
    """Take back that a run is finished, because it is trained longer. Its model is kept under the name of its step.

    Raises:
        DataError: the folder cannot be renamed.
    """
    done = finished_step(run_dir)
    if done is not None and is_exported(run_dir):
        kept = run_dir / f"{EXPORT}-step-{done:08d}"
        with naming_errors(kept):
            put_in_place(run_dir / EXPORT, kept)


def _planned_steps(recipe: TrainRecipe) -> int | None:
    if recipe.steps is not None:
        return recipe.steps
    try:
        samples = count_samples(recipe).training
        return None if samples is None else total_steps(recipe, samples)
    except PokeVLAError:  # a dataset that cannot be read: its own error follows
        return None
