"""Closed-loop trials in a simulator: the whole evaluation of a recipe."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pokevla.embodiment.table import get_embodiment
from pokevla.errors import RecipeError, UsageError
from pokevla.evaluation.folder import EPISODES, IDENTITY, PICTURES, SUMMARY, VIDEOS, clear, refuse_other_folder
from pokevla.evaluation.locking import evaluation_lock
from pokevla.evaluation.policies import build_policies, mask_predictor, refuse_other_robots, weights_identity
from pokevla.evaluation.pool import worker_pool
from pokevla.evaluation.serving_loop import run_trials
from pokevla.evaluation.tensorboard_results import TENSORBOARD, publish_trials
from pokevla.evaluation.trial_records import TrialRecord, append_record, read_records, rewrite_records, summarise
from pokevla.evaluation.trials import Trial, plan_trials
from pokevla.evaluation.videos import TrialRecorder, trial_name
from pokevla.evaluation.worker import BenchmarkFactory
from pokevla.files.texts import read_json, write_json
from pokevla.parts import ENVIRONMENTS, get_part
from pokevla.recipe.load import recipe_hash
from pokevla.recipe.schema import EvalRecipe
from pokevla.simulation.benchmark import Benchmark, EnvironmentSettings
from pokevla.simulation.libero_plus.selection import selected_tasks, task_source

ENVIRONMENT_SEED = 0
"""`env.seed(0)`, as OpenVLA-OFT does (experiments/robot/libero/libero_utils.py)."""

ProgressCallback = Callable[[TrialRecord, int, int], None]
"""(record of the trial just finished, finished trials, all trials)"""


def run_closed_loop(
    recipe: EvalRecipe, *, overwrite: bool = False, on_progress: ProgressCallback | None = None
) -> dict[str, Any]:
    """Run or continue the evaluation; returns the summary, which is also `output/name/summary.json`.

    Trials that are already in `episodes.jsonl` are not repeated, except crashed ones, whose records are replaced. Also
    raises what `build_policies` raises.

    Raises:
        UsageError: another process runs this evaluation, a task does not exist, or `overwrite` is False and the
            evaluation is complete or was started with other settings or weights. Also what `refuse_other_folder` and
            `clear` raise.
        RecipeError: an initial state does not exist, or a policy drives another robot than the environment simulates.
        SimulationError: the first trials all crash.
        DiskFullError: disk full.
    """
    max_steps = check_trials(recipe)
    refuse_other_folder(recipe)
    with evaluation_lock(recipe.output / recipe.name):
        return _run_locked(recipe, max_steps, overwrite, on_progress)


def _run_locked(
    recipe: EvalRecipe, max_steps: int, overwrite: bool, on_progress: ProgressCallback | None
) -> dict[str, Any]:
    folder = recipe.output / recipe.name
    identity = identity_of(recipe)
    stale = _is_stale(folder, identity, overwrite)  # before the weights are loaded: a refusal should be quick
    policies = build_policies(recipe)
    refuse_other_robots(policies, benchmark_of(recipe).embodiment)
    _prepare(folder, identity, stale)
    episodes = folder / EPISODES
    records = [record for record in read_records(episodes) if record.outcome != "crashed"]
    rewrite_records(episodes, records)
    trials = plan_trials(recipe.trials, list(policies), max_steps, task_indices(recipe))
    done = {record.key for record in records}
    remaining = [trial for trial in trials if trial.key not in done]
    predictors = {spec.name: mask_predictor(spec, policies[spec.name]) for spec in recipe.policies if recipe.videos}

    def watch(trial: Trial) -> TrialRecorder | None:
        if trial.number >= recipe.videos or not policies[trial.policy].needs_images:
            return None
        return TrialRecorder(folder, trial_name(trial.key), predictors[trial.policy], queries_per_s(recipe))

    def on_record(record: TrialRecord) -> None:
        append_record(episodes, record)
        records.append(record)
        if on_progress is not None:
            on_progress(record, len(records), len(trials))

    _limit_threads(recipe.workers)
    settings = environment_settings(recipe)
    factory = BenchmarkFactory(recipe.trials.environment, recipe.extensions, settings)
    with worker_pool(min(recipe.workers, max(1, len(remaining))), factory, recipe.worker_timeout_s) as pool:
        run_trials(remaining, policies, pool, recipe.actions_per_query, watch, on_record)
    return write_summary(recipe, records, trials, max_steps)


def identity_of(recipe: EvalRecipe) -> dict[str, Any]:
    """Settings and weights of this evaluation, by which finished trials in its directory are recognised."""
    return {"recipe": recipe_hash(recipe), "weights": weights_identity(recipe)}


def write_summary(
    recipe: EvalRecipe, records: list[TrialRecord], trials: list[Trial], max_steps: int
) -> dict[str, Any]:
    """Write and return `summary.json`, which marks the evaluation as complete."""
    summary = {
        "policies": summarise(_in_order(records, trials)),
        "tasks": _by_task(records, recipe),
        "settings": _settings(recipe, max_steps),
    }
    publish_trials(recipe, summary)
    write_json(recipe.output / recipe.name / SUMMARY, summary)
    return summary


def check_trials(recipe: EvalRecipe) -> int:
    """Step limit of the trials. UsageError for a task that does not exist or cannot run, RecipeError for initial states
    that do not exist, or if no task of the selection can run."""
    trials, benchmark = recipe.trials, benchmark_of(recipe)
    low, high = trials.init_states
    unavailable = benchmark.unavailable_tasks(trials.suite)
    indices = task_indices(recipe)
    if not indices:
        reasons = "; ".join(dict.fromkeys(row["reason"] for row in left_out(recipe))) or "no task is selected"
        raise RecipeError(f"trials: no task of {trials.suite} can run ({reasons}).", "Select others.")
    for index in indices:
        task = benchmark.get_task(trials.suite, index)
        if index in unavailable:
            raise UsageError(
                f"{trials.suite} task {index} ({task.name}) cannot run: {unavailable[index]}.",
                "See docs/libero_plus.md, or leave the task out.",
            )
        if not 0 <= low < high <= task.num_init_states:
            raise RecipeError(
                f"trials.init_states: [{low}, {high}) is not a range of the {task.num_init_states} initial states of "
                f"{trials.suite} task {index}.",
                f"Choose 0 <= first < end <= {task.num_init_states}.",
            )
    return trials.max_steps or benchmark.max_steps(trials.suite)


def benchmark_of(recipe: EvalRecipe) -> Benchmark:
    """The simulator benchmark of the trials, with the recipe's task source."""
    benchmark: Benchmark = get_part("trials.environment", recipe.trials.environment, ENVIRONMENTS)
    return benchmark.configured(task_source(recipe.trials))


def task_indices(recipe: EvalRecipe) -> list[int]:
    """Tasks of the trials: those that the recipe lists, or those of its selection that can run."""
    benchmark = benchmark_of(recipe)
    tasks = selected_tasks(recipe.trials, benchmark)
    if recipe.trials.tasks is not None:
        return tasks
    unavailable = benchmark.unavailable_tasks(recipe.trials.suite)
    return [index for index in tasks if index not in unavailable]


def left_out(recipe: EvalRecipe) -> list[dict[str, Any]]:
    """Tasks of the recipe's selection that cannot run: index, name, perturbation and the reason of each."""
    if recipe.trials.tasks is not None:
        return []
    benchmark, suite = benchmark_of(recipe), recipe.trials.suite
    unavailable = benchmark.unavailable_tasks(suite)
    tasks = [index for index in selected_tasks(recipe.trials, benchmark) if index in unavailable]
    found = [(index, benchmark.get_task(suite, index)) for index in tasks]
    return [
        {"index": index, "name": task.name, "perturbation": task.perturbation, "reason": unavailable[index]}
        for index, task in found
    ]


def environment_settings(recipe: EvalRecipe) -> EnvironmentSettings:
    """How the environments of the trials are created."""
    return EnvironmentSettings(
        recipe.image_size,
        recipe.fast_rendering,
        ENVIRONMENT_SEED,
        fixtures=recipe.trials.fixtures,
        source=task_source(recipe.trials),
    )


def queries_per_s(recipe: EvalRecipe) -> float:
    """How often the real robot would query a policy: its control rate over the actions of one query."""
    robot = get_embodiment(benchmark_of(recipe).embodiment)
    return robot.control_rate_hz / recipe.actions_per_query


def _is_stale(folder: Path, identity: dict[str, Any], overwrite: bool) -> bool:
    """Whether the content of the directory must be deleted. UsageError if it must and `overwrite` is False.

    A finished evaluation is complete if no trial crashed; one with crashes can be continued, which repeats them.
    """
    marker = folder / IDENTITY
    finished = (folder / SUMMARY).exists()
    remedy = "Give the evaluation another name, or delete its folder."
    begun = read_json(marker, remedy=remedy) if marker.exists() else None
    changed = begun is not None and begun != identity
    if overwrite:
        return finished or changed
    crashed = any(record.outcome == "crashed" for record in read_records(folder / EPISODES))
    if changed or (finished and not crashed):
        what = "was started with other settings or other weights" if changed else "is complete"
        raise UsageError(f"The evaluation in {folder} {what}.", "Give it another name, or --overwrite.")
    return False


def _prepare(folder: Path, identity: dict[str, Any], stale: bool) -> None:
    """Create, continue or (if `stale`) empty the directory."""
    # Without a summary it is not finished from here on.
    clear(folder, (SUMMARY, EPISODES, IDENTITY, VIDEOS, PICTURES, TENSORBOARD) if stale else (SUMMARY,))
    write_json(folder / IDENTITY, identity)


def _limit_threads(workers: int) -> None:
    """Limit torch's threads, because the environment processes need the cores."""
    import torch

    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) - workers))


def _in_order(records: list[TrialRecord], trials: list[Trial]) -> list[TrialRecord]:
    """Sort records in the order of the plan, because trials end in any order."""
    place = {trial.key: number for number, trial in enumerate(trials)}
    return sorted((record for record in records if record.key in place), key=lambda record: place[record.key])


def _by_task(records: list[TrialRecord], recipe: EvalRecipe) -> list[dict[str, Any]]:
    rows = []
    for index in task_indices(recipe):
        task = benchmark_of(recipe).get_task(recipe.trials.suite, index)
        figures = summarise(record for record in records if record.task_index == index)
        policies = {
            name: {key: row[key] for key in ("successes", "trials", "crashed")} for name, row in figures.items()
        }
        about = {"name": task.name, "instruction": task.instruction}
        if task.perturbation is not None:
            about |= {"perturbation": task.perturbation, "level": task.level}
        rows.append({"index": index, **about, "policies": policies})
    return rows


def _settings(recipe: EvalRecipe, max_steps: int) -> dict[str, Any]:
    trials = recipe.trials
    return {
        "environment": trials.environment,
        "suite": trials.suite,
        "tasks": task_indices(recipe),
        "unavailable_tasks": left_out(recipe),
        "instructions": trials.instructions,
        "robot_init": trials.robot_init,
        "init_states": list(trials.init_states),
        "target_shift_m": None if trials.target_shift_m is None else list(trials.target_shift_m),
        "max_steps": max_steps,
        "settle_steps": trials.settle_steps,
        "fixtures": trials.fixtures,
        "seed": trials.seed,
        "environment_seed": ENVIRONMENT_SEED,
        "image_size": recipe.image_size,
        "fast_rendering": recipe.fast_rendering,
        "actions_per_query": recipe.actions_per_query,
        "queries_per_s": queries_per_s(recipe),
        "workers": recipe.workers,
        "gl": os.environ.get("MUJOCO_GL", "default"),
        **{name: version(name) for name in benchmark_of(recipe).packages},
        "torch": version("torch"),
        "policies": {spec.name: spec.kind for spec in recipe.policies},
    }
