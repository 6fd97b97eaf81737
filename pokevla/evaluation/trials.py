"""The trials of an evaluation and their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pokevla.recipe.eval_sections.trials import TrialsConfig


@dataclass(frozen=True)
class Trial:
    """One attempt of one policy. Its outcome is a function of these fields and the policy."""

    policy: str
    suite: str
    task_index: int
    init_state_index: int
    number: int  # within (policy, task)
    seed: int
    target_shift_m: tuple[float, float] | None
    max_steps: int
    settle_steps: int

    @property
    def key(self) -> tuple[str, str, int, int]:
        """Identifies a trial within one evaluation: policy, suite, task, initial state."""
        return (self.policy, self.suite, self.task_index, self.init_state_index)


def plan_trials(
    config: TrialsConfig,
    policies: list[str],
    max_steps: Mapping[str, int],
    tasks: Mapping[str, Sequence[int]] | None = None,
) -> list[Trial]:
    """All trials, ordered by suite and task and then by policy.

    Args:
        config: of the recipe.
        policies: their names.
        max_steps: step limit by suite.
        tasks: task indices by suite, for a recipe that selects them in another way than by `trials.tasks`.

    Raises:
        ValueError: no tasks are given in either way.
    """
    if tasks is None:
        if config.tasks is None:
            raise ValueError("trials.tasks is null, and no tasks are given")
        tasks = dict.fromkeys(config.suites, config.tasks)
    return [
        Trial(
            policy=policy,
            suite=suite,
            task_index=task_index,
            init_state_index=init_state,
            number=number,
            seed=config.seed,
            target_shift_m=config.target_shift_m,
            max_steps=max_steps[suite],
            settle_steps=config.settle_steps,
        )
        for suite in config.suites
        for task_index in tasks[suite]
        for policy in policies
        for number, init_state in enumerate(range(*config.init_states))
    ]


def filmed_trials(trials: Sequence[Trial], policy: str, videos: int) -> list[Trial]:
    """The trials of a policy of which a video is kept: the first of each task, then the second of each, ..."""
    of_policy = [trial for trial in trials if trial.policy == policy]
    return sorted(of_policy, key=lambda trial: trial.number)[:videos]  # stable: tasks stay in order


def placement_rng(trial: Trial) -> np.random.Generator:
    """Random generator for a trial's placement: the same for every policy, and independent of workers and order."""
    return np.random.default_rng([trial.seed, trial.task_index, trial.init_state_index])
