"""Which tasks an evaluation has, whether they can run, and how their environments are created."""

from __future__ import annotations

from typing import Any

from pokevla.embodiment.table import get_embodiment
from pokevla.errors import RecipeError, UsageError
from pokevla.parts import ENVIRONMENTS, get_part
from pokevla.recipe.schema import EvalRecipe
from pokevla.simulation.benchmark import Benchmark, EnvironmentSettings
from pokevla.simulation.libero_plus.selection import selected_tasks, task_source

ENVIRONMENT_SEED = 0
"""`env.seed(0)`, as OpenVLA-OFT does (experiments/robot/libero/libero_utils.py)."""


def benchmark_of(recipe: EvalRecipe) -> Benchmark:
    """The simulator benchmark of the trials, with the recipe's task source."""
    benchmark: Benchmark = get_part("trials.environment", recipe.trials.environment, ENVIRONMENTS)
    return benchmark.configured(task_source(recipe.trials))


def environment_settings(recipe: EvalRecipe) -> EnvironmentSettings:
    """How the environments of the trials are created.

    Raises:
        ValueError: the recipe leaves something to the models: `conditions.settling.settle` comes first.
    """
    if recipe.image_size is None or recipe.fast_rendering is None or recipe.trials.instructions is None:
        raise ValueError("the conditions of the trials are not settled")
    return EnvironmentSettings(
        recipe.image_size,
        recipe.fast_rendering,
        recipe.trials.seed if recipe.trials.placements == "drawn" else ENVIRONMENT_SEED,
        fixtures=recipe.trials.fixtures,
        source=task_source(recipe.trials),
        placements=recipe.trials.placements,
    )


def queries_per_s(recipe: EvalRecipe) -> float:
    """How often the real robot would query a policy: its control rate over the actions of one query."""
    robot = get_embodiment(benchmark_of(recipe).embodiment)
    return robot.control_rate_hz / recipe.actions_per_query


def tasks_of(recipe: EvalRecipe) -> dict[str, list[int]]:
    """Task indices of the trials by suite: those that the recipe lists, or those of its selection that can run."""
    benchmark = benchmark_of(recipe)
    tasks = {suite: selected_tasks(recipe.trials, suite, benchmark) for suite in recipe.trials.suites}
    if recipe.trials.tasks is not None:
        return tasks
    unavailable = {suite: benchmark.unavailable_tasks(suite) for suite in tasks}
    return {suite: [index for index in indices if index not in unavailable[suite]] for suite, indices in tasks.items()}


def left_out(recipe: EvalRecipe) -> list[dict[str, Any]]:
    """Tasks of the recipe's selection that cannot run: suite, index, name, perturbation and the reason of each."""
    if recipe.trials.tasks is not None:
        return []
    benchmark, rows = benchmark_of(recipe), []
    for suite in recipe.trials.suites:
        unavailable = benchmark.unavailable_tasks(suite)
        for index in selected_tasks(recipe.trials, suite, benchmark):
            if index in unavailable:
                task = benchmark.get_task(suite, index)
                about = {"suite": suite, "index": index, "name": task.name, "perturbation": task.perturbation}
                rows.append({**about, "reason": unavailable[index]})
    return rows


def check_trials(recipe: EvalRecipe) -> dict[str, int]:
    """Step limit of the trials by suite.

    Raises:
        UsageError: a task does not exist or cannot run.
        RecipeError: initial states do not exist or cannot be drawn, or no task of the selection can run.
    """
    trials, benchmark = recipe.trials, benchmark_of(recipe)
    low, high = trials.init_states
    if trials.placements == "drawn" and not benchmark.draws_placements:
        raise RecipeError(
            f"trials.placements: {trials.environment} cannot draw placements.", "Set trials.placements=shipped."
        )
    for suite, indices in tasks_of(recipe).items():
        if not indices:
            reasons = "; ".join(dict.fromkeys(row["reason"] for row in left_out(recipe))) or "no task is selected"
            raise RecipeError(f"trials: no task of {suite} can run ({reasons}).", "Select others.")
        unavailable = benchmark.unavailable_tasks(suite)
        for index in indices:
            task = benchmark.get_task(suite, index)
            if index in unavailable:
                raise UsageError(
                    f"{suite} task {index} ({task.name}) cannot run: {unavailable[index]}.",
                    "See docs/libero_plus.md, or leave the task out.",
                )
            if trials.placements == "shipped" and not 0 <= low < high <= task.num_init_states:
                raise RecipeError(
                    f"trials.init_states: [{low}, {high}) is not a range of the {task.num_init_states} initial states "
                    f"of {suite} task {index}.",
                    f"Choose 0 <= first < end <= {task.num_init_states}.",
                )
    return {suite: trials.max_steps or benchmark.max_steps(suite) for suite in trials.suites}
