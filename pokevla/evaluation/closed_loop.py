"""Closed-loop trials in a simulator: the whole evaluation of a recipe."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pokevla
from pokevla.errors import UsageError
from pokevla.evaluation.conditions.agreement import Agreement, check_agreement
from pokevla.evaluation.conditions.settling import Settled, settle
from pokevla.evaluation.drawing.watching import watcher_of
from pokevla.evaluation.folder import (
    EPISODES,
    IDENTITY,
    OBSERVATIONS,
    PICTURES,
    SUMMARY,
    VIDEOS,
    clear,
    refuse_other_folder,
)
from pokevla.evaluation.locking import evaluation_lock
from pokevla.evaluation.policies import build_policies, refuse_other_robots, weights_identity
from pokevla.evaluation.running.blocks import Blocks
from pokevla.evaluation.running.places import describe_places, plan_places
from pokevla.evaluation.running.pool import Limits, worker_pool
from pokevla.evaluation.running.serving import Serving, run_trials
from pokevla.evaluation.running.worker import BenchmarkFactory
from pokevla.evaluation.selection import (
    ENVIRONMENT_SEED,
    benchmark_of,
    check_trials,
    environment_settings,
    left_out,
    queries_per_s,
    tasks_of,
)
from pokevla.evaluation.tensorboard_results import TENSORBOARD, publish_trials
from pokevla.evaluation.trial_records import TrialRecord, append_record, read_records, rewrite_records, summarise
from pokevla.evaluation.trials import Trial, plan_trials
from pokevla.files.texts import read_json, write_json
from pokevla.recipe.load import recipe_hash
from pokevla.recipe.schema import EvalRecipe

ProgressCallback = Callable[[TrialRecord, int, int], None]
"""(record of the trial just finished, finished trials, all trials)"""


def run_closed_loop(
    recipe: EvalRecipe,
    *,
    overwrite: bool = False,
    on_progress: ProgressCallback | None = None,
    on_start: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Run or continue the evaluation; returns the summary, which is also `output/name/summary.json`.

    Trials that are already in `episodes.jsonl` are not repeated, except crashed ones, whose records are replaced. Also
    raises what `build_policies` raises.

    Args:
        recipe: of the evaluation.
        overwrite: start over.
        on_progress: called after each trial.
        on_start: called with lines for the user (number of trials, workers, renderer) before the first trial.

    Raises:
        UsageError: another process runs this evaluation, a task does not exist, or `overwrite` is False and the
            evaluation is complete or was started with other settings or weights. Also what `refuse_other_folder` and
            `clear` raise.
        RecipeError: an initial state does not exist, or a policy drives another robot than the environment simulates.
        SimulationError: the first trials all crash.
        PolicyError: a policy returns actions that cannot be executed.
        DiskFullError: disk full.
    """
    max_steps = check_trials(recipe)
    refuse_other_folder(recipe)
    with evaluation_lock(recipe.output / recipe.name):
        return _run_locked(recipe, max_steps, overwrite, on_progress, on_start)


def _run_locked(
    recipe: EvalRecipe,
    max_steps: Mapping[str, int],
    overwrite: bool,
    on_progress: ProgressCallback | None,
    on_start: Callable[[str], None] | None,
) -> dict[str, Any]:
    folder = recipe.output / recipe.name
    settled = settle(recipe)
    recipe = settled.recipe
    identity = identity_of(recipe)
    stale = _is_stale(folder, identity, overwrite)  # before the weights are loaded: a refusal should be quick
    agreement = check_agreement(recipe)
    policies = build_policies(recipe)
    refuse_other_robots(policies, benchmark_of(recipe).embodiment)
    _prepare(folder, identity, stale)
    episodes = folder / EPISODES
    records = [record for record in read_records(episodes) if record.outcome != "crashed"]
    rewrite_records(episodes, records)
    trials = plan_trials(recipe.trials, [spec.name for spec in recipe.policies], max_steps, tasks_of(recipe))
    done = {record.key for record in records}
    remaining = [trial for trial in trials if trial.key not in done]
    watch = watcher_of(recipe, policies, trials)
    versions = versions_of(recipe)

    def on_record(record: TrialRecord) -> None:
        record = dataclasses.replace(record, versions=versions)
        append_record(episodes, record)
        records.append(record)
        if on_progress is not None:
            on_progress(record, len(records), len(trials))

    _limit_threads(recipe.workers)
    settings = environment_settings(recipe)
    factory = BenchmarkFactory(recipe.trials.environment, recipe.extensions, settings)
    limits = Limits(recipe.worker_timeout_s, recipe.step_timeout_s, recipe.trials_per_process)
    places = plan_places(min(recipe.workers, max(1, len(remaining))), pin=recipe.pin_workers)
    if on_start is not None:
        where = f"{len(places)} workers, rendering: {describe_places(places)}"
        for line in (*settled.lines, *agreement.notes, f"{len(remaining)} of {len(trials)} trials, {where}"):
            on_start(line)
    kinship = benchmark_of(recipe).kinship
    serving = Serving(recipe.actions_per_query, recipe.batch_size, recipe.retries, kinship)
    blocks = blocks_of(recipe, trials)
    with worker_pool(places, factory, limits) as pool:
        for block in [trials] if blocks is None else blocks:
            missing = [trial for trial in block if trial.key not in done]
            run_trials(missing, policies, pool, serving, watch, on_record, finished=len(records))
            if blocks is not None and all(judged.decision.stops for judged in blocks.judge(records)):
                break
    return write_summary(settled, records, trials, max_steps, agreement)


def blocks_of(recipe: EvalRecipe, trials: Sequence[Trial]) -> Blocks | None:
    """The trials in blocks, if the recipe ends as soon as a comparison is decided."""
    if recipe.trials.until is None:
        return None
    return Blocks(recipe.trials.until, trials, [spec.name for spec in recipe.policies], recipe.trials.seed)


def identity_of(recipe: EvalRecipe) -> dict[str, Any]:
    """Settings and weights of this evaluation, by which finished trials in its directory are recognised."""
    recipe = settle(recipe).recipe
    return {"recipe": recipe_hash(recipe), "weights": weights_identity(recipe)}


def write_summary(
    settled: Settled,
    records: list[TrialRecord],
    trials: list[Trial],
    max_steps: Mapping[str, int],
    agreement: Agreement,
) -> dict[str, Any]:
    """Write and return `summary.json`, which marks the evaluation as complete."""
    recipe = settled.recipe
    blocks = blocks_of(recipe, trials)
    summary = {
        "policies": summarise(_in_order(records, trials)),
        "suites": {
            suite: summarise(record for record in _in_order(records, trials) if record.suite == suite)
            for suite in recipe.trials.suites
        },
        "tasks": _by_task(records, recipe),
        "settings": _settings(recipe, max_steps)
        | {"from_models": settled.sources, "accepted_differences": agreement.accepted},
    }
    if blocks is not None:
        summary["sequential"] = [judged.to_dict() for judged in blocks.judge(records)]
    publish_trials(recipe, summary)
    write_json(recipe.output / recipe.name / SUMMARY, summary)
    return summary


def versions_of(recipe: EvalRecipe) -> dict[str, str]:
    """Versions of what decides the result of a trial."""
    packages = (*benchmark_of(recipe).packages, "torch")
    return {name: version(name) for name in packages} | {"pokevla": pokevla.__version__}


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
    clear(folder, (SUMMARY, EPISODES, IDENTITY, VIDEOS, PICTURES, OBSERVATIONS, TENSORBOARD) if stale else (SUMMARY,))
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
    by_task: dict[tuple[str, int], list[TrialRecord]] = {}
    for record in records:
        by_task.setdefault((record.suite, record.task_index), []).append(record)
    for suite, indices in tasks_of(recipe).items():
        for index in indices:
            task = benchmark_of(recipe).get_task(suite, index)
            about: dict[str, Any] = {"suite": suite, "index": index, "name": task.name, "instruction": task.instruction}
            if task.perturbation is not None:
                about |= {"perturbation": task.perturbation, "level": task.level}
            policies = {
                name: {key: row[key] for key in ("successes", "trials", "crashed", "low", "high")}
                for name, row in summarise(by_task.get((suite, index), [])).items()
            }
            rows.append({**about, "policies": policies})
    return rows


def _settings(recipe: EvalRecipe, max_steps: Mapping[str, int]) -> dict[str, Any]:
    trials = recipe.trials
    return {
        "environment": trials.environment,
        "suites": list(trials.suites),
        "tasks": tasks_of(recipe),
        "unavailable_tasks": left_out(recipe),
        "instructions": trials.instructions,
        "robot_init": trials.robot_init,
        "init_states": list(trials.init_states),
        "target_shift_m": None if trials.target_shift_m is None else list(trials.target_shift_m),
        "max_steps": dict(max_steps),
        "settle_steps": trials.settle_steps,
        "fixtures": trials.fixtures,
        "placements": trials.placements,
        "seed": trials.seed,
        "environment_seed": ENVIRONMENT_SEED,
        "image_size": recipe.image_size,
        "fast_rendering": recipe.fast_rendering,
        "actions_per_query": recipe.actions_per_query,
        "queries_per_s": queries_per_s(recipe),
        "workers": recipe.workers,
        "batch_size": recipe.batch_size,
        "until": None if trials.until is None else trials.until.model_dump(),
        "gl": os.environ.get("MUJOCO_GL", "default"),
        **versions_of(recipe),
        "policies": {spec.name: spec.kind for spec in recipe.policies},
    }
