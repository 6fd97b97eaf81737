"""Imported checkpoints in an evaluation recipe: whose statistics, which images, how many actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pokevla.errors import RecipeError, UsageError
from pokevla.evaluation.policies import build_policies
from pokevla.policy.published import PublishedPolicy
from pokevla.recipe.checking.consistency import inconsistencies
from pokevla.recipe.load import LoadedRecipe, recipe_hash
from pokevla.recipe.schema import EvalRecipe
from pokevla.runs.checks import check_recipe
from tests.published_checkpoints import PlainVLA, random_observation
from tests.unit.weights.formats.imports import import_published


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_published(PlainVLA("vla-adapter", pro=True), tmp_path_factory.mktemp("published"))


def recipe(folder: Path, policy: dict[str, Any], **changes: Any) -> EvalRecipe:
    trials = {"suite": "libero_spatial", "tasks": [0]}
    policies = [{"name": "theirs", "kind": "model", "run": folder, **policy}]
    return EvalRecipe(**{"kind": "eval", "name": "e", "trials": trials, "policies": policies, **changes})


def test_each_kind_of_policy_is_built_from_an_imported_checkpoint(folder: Path) -> None:
    images, proprio = random_observation(0)
    actions = []
    for kind in ("model", "untrained", "blanked"):
        policy = build_policies(recipe(folder, {"kind": kind}))["theirs", "libero_spatial"]
        assert isinstance(policy, PublishedPolicy)
        assert policy.chosen == "libero_spatial_no_noops"
        actions.append(policy.act(images if policy.needs_images else None, proprio, ["push the plate"]))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(actions[one] - actions[other]).max() > 1e-3


def test_images_are_a_choice_of_the_recipe(folder: Path) -> None:
    images, proprio = random_observation(1)
    both = [
        build_policies(recipe(folder, {"images": name}))["theirs", "libero_spatial"].act(
            images, proprio, ["push the plate"]
        )
        for name in ("published", "plain")
    ]
    assert np.abs(both[0] - both[1]).max() > 1e-4


def test_a_suite_without_statistics_is_refused_unless_others_are_named(folder: Path) -> None:
    goal = {"trials": {"suite": "libero_goal", "tasks": [0]}}
    with pytest.raises(RecipeError, match=r"theirs: .*no statistics of libero_goal .*it has those of libero_spatial"):
        build_policies(recipe(folder, {}, **goal))
    named = build_policies(recipe(folder, {"statistics": "libero_spatial"}, **goal))["theirs", "libero_goal"]
    assert isinstance(named, PublishedPolicy)
    assert named.statistics.name == "libero_spatial_no_noops"


def test_validation_refuses_it_before_anything_is_loaded(folder: Path) -> None:
    changes = {"trials": {"suite": "libero_goal", "tasks": [0]}}
    with pytest.raises(UsageError, match=r"e: .*no statistics of libero_goal"):
        check_recipe(LoadedRecipe(recipe(folder, {}, **changes), Path("x"), {}))
    check_recipe(LoadedRecipe(recipe(folder, {}), Path("x"), {}))


def test_more_actions_than_a_chunk_has_are_refused(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"9 actions are to be executed per query; theirs predicts 8"):
        build_policies(recipe(folder, {}, actions_per_query=9))


def test_the_new_fields_leave_the_hash_of_older_recipes_alone(folder: Path) -> None:
    plain = recipe_hash(recipe(folder, {}))
    assert recipe_hash(recipe(folder, {"images": "published", "statistics": None})) == plain
    assert recipe_hash(recipe(folder, {"images": "plain"})) != plain
    assert recipe_hash(recipe(folder, {"statistics": "libero_goal"})) != plain


def test_each_suite_may_have_a_run_of_its_own(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.symlink_to(folder)
    routed = {"run": {"libero_spatial": folder, "libero_goal": other}, "statistics": "libero_spatial"}
    built = build_policies(recipe(folder, routed, trials={"suite": ["libero_spatial", "libero_goal"], "tasks": [0]}))
    assert list(built) == [("theirs", "libero_spatial"), ("theirs", "libero_goal")]
    models = [policy.model for policy in built.values() if isinstance(policy, PublishedPolicy)]
    assert models[0] is not models[1]


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ({"libero_goal": "x"}, "policies.0.run has no run for the suite libero_spatial of the trials"),
        (
            {"libero_spatial": "x", "libero_goal": "y"},
            "policies.0.run names libero_goal, which is not among",
        ),
    ],
)
def test_runs_by_suite_are_compared_with_the_trials(folder: Path, run: dict[str, str], words: str) -> None:
    assert [text for _, text in inconsistencies(recipe(folder, {"run": run})) if text.startswith(words)]
