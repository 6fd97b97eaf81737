"""Builds the policies of a recipe, and the predictors of their masks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pokevla.embodiment.mixing import refuse_other_robot
from pokevla.embodiment.table import get_embodiment
from pokevla.errors import RecipeError, UsageError
from pokevla.evaluation.drawing.recorder import MaskPredictor
from pokevla.evaluation.running.serving import PolicyKey
from pokevla.parts import ENVIRONMENTS, get_part
from pokevla.policy.acting import ActingPolicy
from pokevla.policy.expert import ExpertPolicy
from pokevla.policy.policy import Policy
from pokevla.policy.published import PublishedPolicy
from pokevla.policy.replay import ReplayPolicy
from pokevla.recipe.checking.datasets import EPISODES_NAME
from pokevla.recipe.eval_sections.policies import PolicySpec
from pokevla.recipe.schema import EvalRecipe
from pokevla.runs.directory import EXPORT_WEIGHTS, holds_recipe, read_run_recipe
from pokevla.weights.base_model import exported_folder


def build_policies(recipe: EvalRecipe) -> dict[PolicyKey, ActingPolicy]:
    """Policies by name and suite. Specs of the same run share its weights.

    Raises:
        RecipeError: a spec lacks a field that its kind needs, two have the same name, or a policy does not suit the
            recipe: its chunks are too short, or it has no statistics of the suite.
        CheckpointError, DataError: a run or dataset does not exist.
        PolicyServerError: a policy server does not answer.
    """
    names = [spec.name for spec in recipe.policies]
    if len(set(names)) != len(names):
        raise RecipeError("policies: two policies have the same name.", "Give each a unique name.")
    loaded: dict[tuple[str, Path], Policy | PublishedPolicy] = {}
    return {
        (spec.name, suite): _build(spec, suite, recipe, loaded)
        for spec in recipe.policies
        for suite in recipe.trials.suites
    }


def _build(
    spec: PolicySpec, suite: str, recipe: EvalRecipe, loaded: dict[tuple[str, Path], Policy | PublishedPolicy]
) -> ActingPolicy:
    if spec.kind == "expert":
        return _expert(recipe)
    if spec.kind == "replay":
        if spec.dataset is None:
            raise RecipeError(f"policies: {spec.name} is a replay and has no `dataset`.", "Name the robot dataset.")
        return ReplayPolicy.from_dataset(spec.dataset, spec.episode, recipe.actions_per_query)
    if spec.kind == "remote":
        return _connected(spec, recipe)
    run = spec.run_for(suite)
    if run is None:
        where = "" if spec.run is None else f" for {suite}"
        raise RecipeError(
            f"policies: {spec.name} is of kind {spec.kind} and has no `run`{where}.", "Name its training run."
        )
    weights = "random" if spec.kind == "untrained" else "trained"
    if (weights, run) not in loaded:
        untrained = weights == "random"
        loaded[weights, run] = (
            Policy.untrained(run, seed=recipe.trials.seed) if untrained else Policy.from_pretrained(run)
        )
    policy = _adapted(loaded[weights, run], spec, suite, recipe)
    return policy.blanked() if spec.kind == "blanked" else policy


def _expert(recipe: EvalRecipe) -> ExpertPolicy:
    benchmark = get_part("trials.environment", recipe.trials.environment, ENVIRONMENTS)
    if benchmark.script is None:
        raise RecipeError(
            f"policies: the benchmark {recipe.trials.environment} has no scripted expert.", "Leave out kind expert."
        )
    return ExpertPolicy(get_embodiment(benchmark.embodiment))


def _connected(spec: PolicySpec, recipe: EvalRecipe) -> ActingPolicy:
    """The policy behind a server, taken to drive the robot of the trials."""
    # Here, because no other policy needs a websocket.
    from pokevla.policy.remote.connection import ServerAddress
    from pokevla.policy.remote.openpi import OpenpiPolicy
    from pokevla.policy.remote.vla_eval import VlaEvalPolicy
    from pokevla.wire.openpi import ObservationKeys

    if spec.url is None or spec.protocol is None:
        raise RecipeError(
            f"policies: {spec.name} is remote and lacks `url` or `protocol`.", "Set url: ws://HOST:PORT and protocol."
        )
    benchmark = get_part("trials.environment", recipe.trials.environment, ENVIRONMENTS)
    robot = get_embodiment(benchmark.embodiment)
    address = ServerAddress(spec.name, spec.url, spec.timeout_s)
    if spec.protocol == "vla-eval":
        return VlaEvalPolicy.connect(address, robot)
    keys = spec.keys
    return OpenpiPolicy.connect(
        address, robot, ObservationKeys(keys.images, keys.proprio, keys.instruction, keys.actions)
    )


def _adapted(
    policy: Policy | PublishedPolicy, spec: PolicySpec, suite: str, recipe: EvalRecipe
) -> Policy | PublishedPolicy:
    """The policy for the trials of the recipe: a published one with the statistics and images that the spec asks for.

    Raises:
        RecipeError: it has no such statistics, or its chunks are shorter than what is executed of them.
    """
    if policy.chunk_length < recipe.actions_per_query:
        raise RecipeError(
            f"actions_per_query: {recipe.actions_per_query} actions are to be executed per query; {spec.name} predicts "
            f"{policy.chunk_length}.",
            f"Set actions_per_query={policy.chunk_length} or less.",
        )
    if not isinstance(policy, PublishedPolicy):
        return policy
    try:
        policy = policy.for_suite(spec.statistics or suite)
    except UsageError as error:
        raise RecipeError(f"policies: {spec.name}: {error.message}", error.remedy) from error
    return policy if spec.images == "published" else policy.with_plain_images()


def refuse_other_robots(policies: Mapping[PolicyKey, ActingPolicy], embodiment: str) -> None:
    """Refuse policies that cannot drive the robot of an environment, an entry of `pokevla.parts.EMBODIMENTS`.

    Raises:
        RecipeError: one was trained for another robot; says what differs. Or there is no such entry.
    """
    simulated = get_embodiment(embodiment)
    for (name, _), policy in policies.items():
        refuse_other_robot(name, policy.embodiment, simulated)


def weights_identity(recipe: EvalRecipe) -> dict[str, Any]:
    """Size and time of each policy's weights, by which a continued evaluation recognises the same policy."""
    identity: dict[str, Any] = {}
    for spec in recipe.policies:
        files = {suite: exported_folder(run) / EXPORT_WEIGHTS for suite, run in spec.runs.items()}
        if not files and spec.dataset is not None:
            files = {"": spec.dataset / EPISODES_NAME}
        for suite, file in files.items():
            if file.is_file():
                stat = file.stat()
                identity[f"{spec.name} {suite}".strip()] = [stat.st_size, stat.st_mtime_ns]
    return identity


def mask_predictor(spec: PolicySpec, suite: str, policy: ActingPolicy) -> MaskPredictor | None:
    """Mask predictor of a trained policy in a suite. Needs the SAM teacher of its training recipe (`RUN/recipe.yaml`).
    None if there is no such teacher: an exported model without its run, or a run without the mask loss."""
    run = spec.run_for(suite)
    if spec.kind != "model" or run is None or not isinstance(policy, Policy) or not policy.needs_images:
        return None
    if not holds_recipe(run):
        return None
    recipe = read_run_recipe(run)
    if recipe.feature_cache is None or recipe.feature_cache.sam is None or not recipe.supervises_masks:
        return None
    from pokevla.policy.masks import MaskReader

    return MaskReader.from_teacher_config(policy, recipe.feature_cache.sam)
