"""Which trials of an evaluation leave pictures, and which a video."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pokevla.evaluation.drawing.actions import ActionBounds
from pokevla.evaluation.drawing.first_and_last import FirstAndLast
from pokevla.evaluation.drawing.recorder import Filming, TrialRecorder
from pokevla.evaluation.drawing.videos import trial_name
from pokevla.evaluation.policies import mask_predictor
from pokevla.evaluation.running.serving import PolicyKey
from pokevla.evaluation.trials import Trial, filmed_trials
from pokevla.policy.acting import ActingPolicy
from pokevla.policy.policy import Policy
from pokevla.policy.published import PublishedPolicy
from pokevla.recipe.schema import EvalRecipe


def watcher_of(
    recipe: EvalRecipe, policies: Mapping[PolicyKey, ActingPolicy], trials: Sequence[Trial]
) -> Callable[[Trial], FirstAndLast | None]:
    """Who watches a trial: pictures of every trial of a policy that sees images, and videos of some."""
    folder = recipe.output / recipe.name
    filmed = {trial.key for spec in recipe.policies for trial in filmed_trials(trials, spec.name, recipe.videos)}
    filming = {
        (spec.name, suite): Filming(
            policies[spec.name, suite].embodiment,
            recipe.actions_per_query,
            mask_predictor(spec, suite, policies[spec.name, suite]),
            bounds_of(policies[spec.name, suite]),
        )
        for spec in recipe.policies
        for suite in recipe.trials.suites
        if recipe.videos
    }

    def watch(trial: Trial) -> FirstAndLast | None:
        if not policies[trial.policy, trial.suite].needs_images:
            return None
        recorder = None
        if trial.key in filmed:
            recorder = TrialRecorder(folder, trial, filming[trial.policy, trial.suite])
        return FirstAndLast(folder, trial_name(trial.key), recorder)

    return watch


def bounds_of(policy: ActingPolicy) -> ActionBounds | None:
    """The quantiles that a model's actions are scaled by; None of a policy that does not tell."""
    if isinstance(policy, Policy):
        return policy.statistics.action.q01, policy.statistics.action.q99
    if isinstance(policy, PublishedPolicy):
        return policy.statistics.action.low, policy.statistics.action.high
    return None
