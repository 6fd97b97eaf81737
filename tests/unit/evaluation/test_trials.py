"""Which trials there are, and of which a video is kept."""

from __future__ import annotations

from pokevla.evaluation.trials import filmed_trials, plan_trials
from pokevla.recipe.eval_sections.trials import TrialsConfig


def test_videos_are_spread_over_the_tasks_and_not_kept_of_each() -> None:
    config = TrialsConfig(suite=("a", "b"), tasks=[0, 1], init_states=(0, 3))
    trials = plan_trials(config, ["one", "two"], {"a": 1, "b": 1})
    filmed = filmed_trials(trials, "two", 5)
    assert [(trial.suite, trial.task_index, trial.init_state_index) for trial in filmed] == [
        ("a", 0, 0), ("a", 1, 0), ("b", 0, 0), ("b", 1, 0), ("a", 0, 1),
    ]  # fmt: skip
    assert {trial.policy for trial in filmed} == {"two"}
    assert filmed_trials(trials, "one", 0) == []
