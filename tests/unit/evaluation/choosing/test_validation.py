"""Which trials judge a checkpoint, and which one wins."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.errors import RecipeError
from pokevla.evaluation.choosing.validation import Judged, best_of, policy_to_judge, validation_recipe
from pokevla.evaluation.selection import environment_settings
from pokevla.recipe.schema import EvalRecipe


def recipe(**changes: object) -> EvalRecipe:
    trials = {"suite": "libero_goal", "tasks": [1, 2], "target_shift_m": (0.01, 0.02), "instructions": "clean"}
    values = {
        "kind": "eval", "name": "e", "trials": trials,
        "policies": [{"name": "p", "kind": "model", "run": "x"}], "image_size": 256, "fast_rendering": False,
    }  # fmt: skip
    return EvalRecipe.model_validate({**values, **changes})


def test_validation_has_the_tasks_of_the_test_and_placements_of_its_own() -> None:
    part = validation_recipe(recipe(validation={"trials_per_task": 3, "seed": 5}), 40, Path("model"))
    assert part.name == "e-checkpoints/step-00000040"
    assert (part.trials.tasks, part.trials.init_states, part.trials.placements) == ([1, 2], (0, 3), "drawn")
    assert (part.trials.seed, part.trials.target_shift_m) == (5, None)
    assert (environment_settings(part).seed, environment_settings(part).placements) == (5, "drawn")
    assert environment_settings(recipe()).placements == "shipped"
    assert part.policies[0].run == Path("model")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policies": [{"name": "a", "kind": "expert"}]}, "one policy of kind model"),
        ({"policies": [{"name": n, "kind": "model", "run": "x"} for n in "ab"]}, "the recipe has 2 policies"),
        ({"trials": {"suite": "libero_goal", "tasks": [1], "until": {"difference": 0.1, "max": 9}}}, "trials.until"),
    ],
)
def test_a_recipe_without_a_single_model_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        policy_to_judge(recipe(**changes))


JUDGED = st.builds(
    lambda step, trials, share: Judged(step, round(share * trials), trials, 0, 0.0, 1.0),
    st.integers(1, 999), st.integers(0, 20), st.floats(0, 1),
)  # fmt: skip


@given(st.lists(JUDGED, max_size=9, unique_by=lambda each: each.step))
def test_the_earliest_of_the_best_wins(judged: list[Judged]) -> None:
    best = best_of(judged)
    able = [each for each in judged if each.trials]
    if not able:
        assert best is None
        return
    assert best is not None
    assert best.rate == max(each.rate for each in able)
    assert best.step == min(each.step for each in able if each.rate == best.rate)
    assert best_of(judged[::-1]) == best
