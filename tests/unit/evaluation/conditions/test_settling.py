"""What a recipe leaves to the models is taken from them, or refused where they disagree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pokevla.errors import RecipeError
from pokevla.evaluation.closed_loop import identity_of
from pokevla.evaluation.conditions.agreement import check_agreement
from pokevla.evaluation.conditions.settling import settle
from pokevla.evaluation.selection import environment_settings
from pokevla.recipe.load import recipe_hash
from pokevla.recipe.schema import EvalRecipe
from pokevla.recipe.values import learnt_values

TRAINED: dict[str, Any] = {"image_size": [128], "fast_rendering": [True], "instructions": ["task"]}


def export(run: Path, trained_on: Any, **config: Any) -> Path:
    folder = run / "export"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"weight": np.zeros(4, np.float32)}, folder / "model.safetensors")
    record = {} if trained_on is None else {"trained_on": trained_on}
    (folder / "config.json").write_text(json.dumps({"kind": "pokevla", **record, **config}))
    return run


def recipe(*runs: Any, kind: str = "model", **changes: Any) -> EvalRecipe:
    trials = {"suite": "libero_spatial", "tasks": [0], **changes.pop("trials", {})}
    policies = [{"name": f"p{number}", "kind": kind, "run": run} for number, run in enumerate(runs)]
    return EvalRecipe(**{"kind": "eval", "name": "e", "trials": trials, "policies": policies, **changes})


def conditions(job: EvalRecipe) -> tuple[Any, ...]:
    return job.image_size, job.fast_rendering, job.trials.instructions


def test_what_a_recipe_does_not_say_is_as_the_models_were_trained(tmp_path: Path) -> None:
    one, two = export(tmp_path / "one", TRAINED), export(tmp_path / "two", TRAINED)
    settled = settle(recipe(one, two))
    assert conditions(settled.recipe) == (128, True, "clean")
    assert settled.lines == ("image_size 128, fast_rendering true: as p0 and p1 were trained.",)
    assert settled.sources == {"image_size": ["p0", "p1"], "fast_rendering": ["p0", "p1"]}
    assert check_agreement(settled.recipe).notes == ()
    assert environment_settings(settled.recipe).image_size == 128
    with pytest.raises(ValueError, match="not settled"):
        environment_settings(recipe(one))


def test_what_a_recipe_says_stays_and_is_judged_by_the_agreement(tmp_path: Path) -> None:
    run = export(tmp_path / "run", TRAINED)
    settled = settle(recipe(run, image_size=256, fast_rendering=False))
    assert (conditions(settled.recipe), settled.lines) == ((256, False, "clean"), ())
    with pytest.raises(RecipeError, match="image_size 128, these trials have 256"):
        check_agreement(settled.recipe)


def test_models_that_were_trained_differently_are_both_named(tmp_path: Path) -> None:
    one = export(tmp_path / "one", TRAINED)
    two = export(tmp_path / "two", {**TRAINED, "image_size": [256]})
    for job, names in (
        (recipe(one, two), ("p0", "p1")),
        (recipe({"libero_spatial": one, "libero_goal": two}), ("p0 (libero_spatial)", "p0 (libero_goal)")),
    ):
        with pytest.raises(RecipeError) as refused:
            settle(job)
        assert refused.value.message == (
            "image_size: the recipe leaves it to the policies, and they were trained differently: "
            f"{names[0]} with 128, {names[1]} with 256."
        )
        assert "accept_differences=[image_size]" in str(refused.value.remedy)
    told = recipe(one, two, image_size=128, accept_differences=["image_size"])
    assert check_agreement(settle(told).recipe).accepted["p1"]["image_size"] == {"trained": [256], "evaluated": 128}


@pytest.mark.parametrize(
    ("trained", "taken"), [([128, 256], 256), ([64, 128], 128), ([128], 128), (None, 256)], ids=str
)
def test_of_several_sizes_the_default_or_the_largest_is_taken(
    tmp_path: Path, trained: list[int] | None, taken: int
) -> None:
    run = export(tmp_path / "run", {} if trained is None else {"image_size": trained})
    assert settle(recipe(run)).recipe.image_size == taken


def test_models_that_do_not_tell_leave_the_choice_to_those_that_do(tmp_path: Path) -> None:
    old, new = export(tmp_path / "old", None), export(tmp_path / "new", TRAINED)
    assert settle(recipe(old, new)).sources == {"image_size": ["p1"], "fast_rendering": ["p1"]}
    assert settle(recipe(old)).lines == (
        "image_size 256, fast_rendering false: the default, because no policy says what it was trained with.",
    )
    for job in (recipe(new, kind="untrained"), recipe(tmp_path / "nothing")):
        assert conditions(settle(job).recipe) == (256, False, "clean"), "baselines and runs without a model have no say"
    assert settle(recipe(new, kind="untrained")).lines == ()


def test_a_policy_that_sees_nothing_has_no_say_on_images(tmp_path: Path) -> None:
    blank = export(tmp_path / "blank", TRAINED, blank_images=True)
    seeing = export(tmp_path / "seeing", {**TRAINED, "image_size": [256], "fast_rendering": [False]})
    assert conditions(settle(recipe(blank, seeing)).recipe) == (256, False, "clean")
    assert conditions(settle(recipe(blank)).recipe) == (256, False, "clean")
    assert conditions(settle(recipe(seeing, kind="blanked")).recipe) == (256, False, "clean")


def test_a_run_that_is_still_training_tells_too(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trained_on.json").write_text(json.dumps(TRAINED))
    assert conditions(settle(recipe(tmp_path / "run")).recipe) == (128, True, "clean")


@pytest.mark.parametrize(
    ("wordings", "taken"),
    [(["task"], "clean"), (["file"], "bddl"), (["file", "task"], "clean"), (["own words"], "clean")],
)
def test_libero_plus_is_worded_as_the_training_data(tmp_path: Path, wordings: list[str], taken: str) -> None:
    run = export(tmp_path / "run", {**TRAINED, "instructions": wordings})
    settled = settle(recipe(run, trials={"environment": "libero_plus"}))
    assert settled.recipe.trials.instructions == taken
    assert any(f"trials.instructions {taken}" in line for line in settled.lines)


def test_evaluations_begun_with_the_former_defaults_go_on(tmp_path: Path) -> None:
    run = export(tmp_path / "run", {**TRAINED, "image_size": [256], "fast_rendering": [False]})
    said = recipe(run, image_size=256, fast_rendering=False, trials={"instructions": "clean"})
    assert identity_of(recipe(run)) == identity_of(said)
    assert recipe_hash(recipe(run)) == recipe_hash(said), "stages of pipelines stay finished"
    assert "instructions" not in learnt_values(recipe(run))["trials"]

    small = export(tmp_path / "small", TRAINED)
    assert identity_of(recipe(small))["recipe"] == recipe_hash(recipe(small, image_size=128, fast_rendering=True))
    assert identity_of(recipe(small))["recipe"] != recipe_hash(recipe(small))
