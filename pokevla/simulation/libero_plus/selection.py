"""Which tasks of a suite an evaluation has: all, those of some perturbations, or a subset drawn by a seed."""

from __future__ import annotations

import zlib

import numpy as np

from pokevla.recipe.eval_sections.trials import TrialsConfig
from pokevla.simulation.benchmark import Benchmark, TaskSource


def task_source(trials: TrialsConfig) -> TaskSource:
    """Where the recipe's tasks come from. Where the models decide on the wording it is `clean`, for listing tasks."""
    wording = trials.instructions or "clean"
    return TaskSource(trials.libero_plus, trials.libero_plus_assets, wording, trials.robot_init)


def selected_tasks(trials: TrialsConfig, suite: str, benchmark: Benchmark) -> list[int]:
    """Task indices of the trials of a suite in ascending order, those that cannot run included.

    `trials.tasks`, or all tasks in `trials.perturbations` and `trials.subset`. Raises what `benchmark.get_task` does.
    """
    if trials.tasks is not None:
        return list(trials.tasks)
    indices = list(range(benchmark.num_tasks(suite)))
    if trials.perturbations is None and trials.subset is None:
        return indices
    category = {index: benchmark.get_task(suite, index).perturbation for index in indices}
    if trials.subset is not None:
        share = trials.subset.per_suite // len(benchmark.perturbations)
        indices = stratified_subset(category, benchmark.perturbations, share, trials.subset.seed, suite)
    wanted = benchmark.perturbations if trials.perturbations is None else trials.perturbations
    return [index for index in indices if category[index] in wanted]


def stratified_subset(
    category: dict[int, str | None], categories: tuple[str, ...], share: int, seed: int, suite: str
) -> list[int]:
    """`share` tasks of each category, drawn without replacement; all of a category that has fewer.

    The draw of one category does not depend on the others, so an evaluation of some categories has the tasks that the
    whole subset has.
    """
    chosen: list[int] = []
    for name in categories:
        of_category = [index for index, found in category.items() if found == name]
        rng = np.random.default_rng([seed, zlib.crc32(suite.encode()), zlib.crc32(name.encode())])
        chosen += rng.permutation(of_category)[:share].tolist()
    return sorted(chosen)
