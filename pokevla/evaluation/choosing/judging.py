"""`pokevla eval best`: judges the checkpoints of a run one after the other, and tests the best."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from pokevla.errors import CheckpointError, UsageError
from pokevla.evaluation.choosing.validation import (
    CHOICE,
    Choice,
    Judged,
    best_of,
    judged_of,
    policy_to_judge,
    read_choice,
    validation_recipe,
)
from pokevla.evaluation.closed_loop import ProgressCallback, run_closed_loop
from pokevla.evaluation.conditions.settling import settle
from pokevla.evaluation.folder import IDENTITY, SUMMARY
from pokevla.evaluation.locking import evaluation_lock
from pokevla.files.texts import read_json, write_json
from pokevla.recipe.load import recipe_hash
from pokevla.recipe.schema import EvalRecipe, PosttrainRecipe
from pokevla.runs.checkpoints import list_checkpoints, read_info
from pokevla.runs.directory import read_run_recipe
from pokevla.runs.ending import finished_step
from pokevla.telemetry.tensorboard import TENSORBOARD, TensorBoardWriter
from pokevla.weights.export import export_checkpoint

MODELS = "models"
"""Folder of the exported checkpoints, of which the chosen one stays."""
POLL_S = 20.0
"""How often a running training is looked at for a new checkpoint."""


@dataclasses.dataclass(frozen=True)
class Listeners:
    """What the caller prints."""

    on_progress: ProgressCallback | None = None
    on_judged: Callable[[Judged], None] = lambda judged: None
    on_note: Callable[[str], None] = lambda note: None


def choose_checkpoint(
    recipe: EvalRecipe, run: Path, *, every: int = 1, follow_s: float | None = None, listeners: Listeners = Listeners()
) -> Choice:
    """Judge every `every`-th checkpoint of `run`; returns the choice, which is also `choice.json`.

    Checkpoints that are judged already are not judged again. One that is deleted while it is read is passed over.

    Args:
        recipe: of the test.
        run: post-training run directory.
        every: 1 judges all checkpoints.
        follow_s: also judge those that a running training still writes, until it ends or writes none for so many
            seconds. None: those that are there.
        listeners: callbacks.

    Raises:
        RecipeError: the recipe has no single model to judge.
        UsageError: `run` is no post-training run, has no checkpoint, or another process does the same.
        CheckpointError: a checkpoint is damaged.
    """
    spec = policy_to_judge(recipe)
    trained = read_run_recipe(run)
    if not isinstance(trained, PosttrainRecipe):
        raise UsageError(f"{run} is a run of kind {trained.kind}: it has no policy.", "Name a post-training run.")
    # From the run, because the models of checkpoints that were not chosen are deleted.
    whole_run = recipe.model_copy(update={"policies": [spec.model_copy(update={"run": run})]})
    recipe = settle(whole_run).recipe.model_copy(update={"policies": recipe.policies})
    folder = recipe.output / f"{recipe.name}-checkpoints"
    with evaluation_lock(folder):
        _refuse_other_run(folder, run)
        judged: dict[int, Judged] = {}
        waited_s = 0.0
        while True:
            ended = finished_step(run) is not None  # before the list, so that the last checkpoint is in it
            steps = [step for step, _ in list_checkpoints(run)][::every]
            new = [step for step in steps if step not in judged]
            for step in new:
                result = _judge(recipe, spec.name, run, trained, step, folder, listeners)
                if result is not None:
                    judged[step] = result
                    listeners.on_judged(result)
                    _write_choice(folder, recipe, run, judged)
            if follow_s is None or ended:
                break
            waited_s = 0.0 if new else waited_s + POLL_S
            if waited_s > follow_s:
                listeners.on_note(f"{run} has written no checkpoint for {follow_s:g} s: not waiting any longer.")
                break
            time.sleep(POLL_S)
        if not judged:
            raise UsageError(f"{run} has no checkpoint that can be judged.", "Train it first.")
        choice = _write_choice(folder, recipe, run, judged)
        _keep_only(folder / MODELS, choice["chosen"])
        return choice


def _refuse_other_run(folder: Path, run: Path) -> None:
    former = read_choice(folder)
    if former is not None and Path(former["run"]).resolve() != run.resolve():
        raise UsageError(
            f"{folder} has the checkpoints of {former['run']}, not of {run}.",
            "Give the evaluation another name: name=...",
        )


def test_recipe(recipe: EvalRecipe, choice: Choice) -> EvalRecipe:
    """The recipe of the test, with the chosen checkpoint as its model."""
    spec = policy_to_judge(recipe)
    if choice["chosen"] is None:
        raise UsageError("All validation trials crashed, so no checkpoint was chosen.", "Try `pokevla doctor`.")
    model = recipe.output / f"{recipe.name}-checkpoints" / MODELS / _folder_name(choice["chosen"])
    return recipe.model_copy(update={"policies": [spec.model_copy(update={"run": model})]})


test_recipe.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it


def _judge(
    recipe: EvalRecipe,
    policy: str,
    run: Path,
    trained: PosttrainRecipe,
    step: int,
    folder: Path,
    listeners: Listeners,
) -> Judged | None:
    """The validation trials of one checkpoint; None if it has been deleted meanwhile."""
    model = folder / MODELS / _folder_name(step)
    part = validation_recipe(recipe, step, model)
    earlier = _earlier(part, policy, step)
    if earlier is not None and not earlier.crashed:
        return earlier
    exported_now = not model.is_dir()
    if exported_now:
        source = dict(list_checkpoints(run)).get(step)
        try:
            if source is None:
                raise CheckpointError(f"{run} has no checkpoint of step {step} any more.")
            export_checkpoint(run, trained, source, read_info(source), model)
        except CheckpointError as error:
            if step in dict(list_checkpoints(run)):
                raise
            listeners.on_note(f"step {step} was deleted before it could be judged: {error.message}")
            return None
    summary = run_closed_loop(part, overwrite=exported_now, on_progress=listeners.on_progress)
    result = judged_of(step, summary, policy)
    _publish(run, recipe.name, policy, result)
    return result


def _earlier(part: EvalRecipe, policy: str, step: int) -> Judged | None:
    """What an earlier call has found about a checkpoint. UsageError if it had other trials."""
    folder = part.output / part.name
    if not (folder / SUMMARY).is_file():
        return None
    if read_json(folder / IDENTITY).get("recipe") != recipe_hash(part):
        raise UsageError(
            f"{folder} was judged on other trials.",
            "Give the evaluation another name (name=...), or delete its folder.",
        )
    return judged_of(step, read_json(folder / SUMMARY), policy)


def _publish(run: Path, name: str, policy: str, judged: Judged) -> None:
    """A point of the curve over the checkpoints, beside the training's own curves."""
    values = {"success_rate/all": judged.rate, "success_rate/low_95": judged.low, "success_rate/high_95": judged.high}
    folder = run / TENSORBOARD / "eval" / f"{name}-checkpoints" / policy
    with closing(TensorBoardWriter(folder)) as writer:
        writer.scalars(values | {"trials": judged.trials, "crashed": judged.crashed}, judged.step)


def _write_choice(folder: Path, recipe: EvalRecipe, run: Path, judged: dict[int, Judged]) -> Choice:
    rows = [judged[step] for step in sorted(judged)]
    best = best_of(rows)
    choice = Choice(
        run=str(run),
        chosen=None if best is None else best.step,
        seed=recipe.validation.seed,
        trials_per_task=recipe.validation.trials_per_task,
        checkpoints=[dataclasses.asdict(each) | {"rate": each.rate} for each in rows],
    )
    plain: dict[str, Any] = dict(choice)
    write_json(folder / CHOICE, plain)
    return choice


def _keep_only(models: Path, step: int | None) -> None:
    """Delete the exported models of the checkpoints that were not chosen: each is as large as the model."""
    for model in sorted(models.glob("step-*")):
        if step is None or model.name != _folder_name(step):
            shutil.rmtree(model)


def _folder_name(step: int) -> str:
    return f"step-{step:08d}"
