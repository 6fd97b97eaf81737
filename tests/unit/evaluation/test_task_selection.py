"""Tasks that a recipe leaves to the benchmark: which run, and which are listed as left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from pokevla.errors import RecipeError, UsageError
from pokevla.evaluation.conditions.settling import settle
from pokevla.evaluation.parts import missing_parts
from pokevla.evaluation.selection import check_trials, environment_settings, left_out, tasks_of
from pokevla.recipe.eval_sections.policies import PolicySpec
from pokevla.recipe.eval_sections.trials import TrialsConfig
from pokevla.recipe.schema import EvalRecipe
from tests.libero_plus import ADDED, BACKGROUND, CAMERA, LANGUAGE, LIGHT, MOVED, NOISE, ROBOT, SAMPLE, sample_source


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EvalRecipe:
    sample_source(monkeypatch)
    trials = TrialsConfig(environment="libero_plus", suite="libero_object", libero_plus=SAMPLE, init_states=(0, 1))
    policies = [PolicySpec(name="replay", kind="replay", dataset=tmp_path / "data")]
    return EvalRecipe(kind="eval", name="judged", output=tmp_path, trials=trials, policies=policies)


def _with(recipe: EvalRecipe, **trials: object) -> EvalRecipe:
    return recipe.model_copy(update={"trials": recipe.trials.model_copy(update=trials)})


def test_all_tasks_that_can_run_run_and_the_others_are_listed(recipe: EvalRecipe) -> None:
    assert tasks_of(recipe) == {"libero_object": [CAMERA, ROBOT, LANGUAGE, NOISE, MOVED]}
    assert missing_parts(recipe) == [f"libero_object-{task:02d}" for task in tasks_of(recipe)["libero_object"]]
    assert check_trials(recipe) == {"libero_object": 280}
    listed = left_out(recipe)
    assert [row["index"] for row in listed] == [LIGHT, BACKGROUND, ADDED]
    assert [row["perturbation"] for row in listed] == ["Light Conditions", "Background Textures", "Objects Layout"]
    assert all(row["reason"] for row in listed)


def test_a_task_that_is_named_and_cannot_run_is_refused(recipe: EvalRecipe) -> None:
    with pytest.raises(UsageError, match=r"task 5 \(.*_light_11\) cannot run: the checkout has no"):
        check_trials(_with(recipe, tasks=[LIGHT]))
    assert left_out(_with(recipe, tasks=[CAMERA])) == []


def test_a_selection_without_a_task_that_runs_is_refused(recipe: EvalRecipe) -> None:
    with pytest.raises(RecipeError, match=r"no task of libero_object can run \(the checkout has no"):
        check_trials(_with(recipe, perturbations=["Light Conditions"]))


def test_a_layout_has_one_initial_state(recipe: EvalRecipe) -> None:
    with pytest.raises(RecipeError, match="not a range of the 1 initial states of libero_object task 4"):
        check_trials(_with(recipe, tasks=[MOVED], init_states=(0, 2)))


def test_environments_get_the_recipes_source(recipe: EvalRecipe) -> None:
    settings = environment_settings(settle(_with(recipe, robot_init="full", fixtures="fixed")).recipe)
    assert (settings.source.checkout, settings.source.robot_init, settings.fixtures) == (SAMPLE, "full", "fixed")
