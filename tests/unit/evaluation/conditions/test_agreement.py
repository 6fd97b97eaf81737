"""An evaluation shows and asks what its policies were trained on, or says that it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pokevla.errors import CheckpointError, DataError, RecipeError
from pokevla.evaluation.conditions.agreement import Agreement, check_agreement
from pokevla.recipe.schema import EvalRecipe
from pokevla.recipe.values import learnt_values

TRAINED: dict[str, Any] = {"image_size": [256], "fast_rendering": [False], "instructions": ["task"]}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with an exported policy."""
    export(tmp_path / "run", TRAINED)
    return tmp_path / "run"


def export(run: Path, trained_on: Any, **config: Any) -> None:
    folder = run / "export"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"weight": np.zeros(4, np.float32)}, folder / "model.safetensors")
    content = {"kind": "pokevla", **config}
    (folder / "config.json").write_text(
        json.dumps(content if trained_on is None else {**content, "trained_on": trained_on})
    )


def recipe(run: Path, kind: str = "model", **changes: Any) -> EvalRecipe:
    trials = {"suite": "libero_spatial", "tasks": [0], **changes.pop("trials", {})}
    policies = [{"name": "ours", "kind": kind, "run": run}]
    values = {"kind": "eval", "name": "e", "trials": trials, "policies": policies}
    return EvalRecipe(**{**values, "image_size": 256, "fast_rendering": False, **changes})


def test_equal_conditions_need_no_word(run: Path) -> None:
    assert check_agreement(recipe(run)) == Agreement()


@pytest.mark.parametrize(
    ("trained", "changes", "words", "remedy"),
    [
        ({"image_size": [128]}, {}, "image_size 128, these trials have 256", "Set image_size=128."),
        ({}, {"image_size": 64}, "image_size 256, these trials have 64", "Set image_size=256."),
        ({"image_size": [64, 128]}, {}, "image_size 64 and 128, these trials have 256", "Set image_size=128."),
        ({}, {"fast_rendering": True}, "fast_rendering false, these trials have true", "Set fast_rendering=false."),
        ({"instructions": ["file"]}, {}, "instructions file, these trials have task", "Convert the data with"),
    ],
)
def test_a_difference_is_refused_with_both_values_and_accepted_by_name(
    run: Path, trained: dict[str, Any], changes: dict[str, Any], words: str, remedy: str
) -> None:
    export(run, {**TRAINED, **trained})
    name = words.split()[0]
    with pytest.raises(RecipeError, match=f"policies: ours was trained with {words}") as refused:
        check_agreement(recipe(run, **changes))
    told = str(refused.value.remedy)
    assert told.startswith(remedy)
    assert f"accept_differences=[{name}]" in told

    agreement = check_agreement(recipe(run, accept_differences=[name], **changes))
    assert list(agreement.accepted["ours"]) == [name]
    assert agreement.accepted["ours"][name]["trained"] == {**TRAINED, **trained}[name]
    assert words in agreement.notes[0]


def test_all_differences_are_told_at_once(run: Path) -> None:
    with pytest.raises(RecipeError) as refused:
        check_agreement(recipe(run, image_size=64, fast_rendering=True, accept_differences=["instructions"]))
    assert [line.split(" these")[0] for line in refused.value.message.splitlines()] == [
        "policies: ours was trained with image_size 256,",
        "policies: ours was trained with fast_rendering false,",
    ]
    assert "accept_differences=[image_size,fast_rendering]" in str(refused.value.remedy)


def test_the_run_of_one_suite_is_named(run: Path, tmp_path: Path) -> None:
    export(tmp_path / "other", {**TRAINED, "image_size": [128]})
    job = recipe(run)
    runs = {"libero_spatial": run, "libero_goal": tmp_path / "other"}
    job = job.model_copy(update={"policies": [job.policies[0].model_copy(update={"run": runs})]})
    with pytest.raises(RecipeError, match=r"policies: ours \(libero_goal\) was trained with image_size 128") as refused:
        check_agreement(job)
    assert "libero_spatial" not in refused.value.message


def test_one_of_several_sizes_of_a_mixture_is_enough(run: Path) -> None:
    export(run, {**TRAINED, "image_size": [128, 256], "instructions": ["file", "task"]})
    assert check_agreement(recipe(run)) == Agreement()


def test_exports_of_earlier_versions_give_a_note(run: Path) -> None:
    export(run, None)
    (note,) = check_agreement(recipe(run, image_size=64)).notes
    assert note == "policies: ours does not say with what image_size, fast_rendering, instructions it was trained."
    export(run, {"image_size": [64]})
    assert "with what fast_rendering, instructions" in check_agreement(recipe(run, image_size=64)).notes[0]


def test_policies_that_see_nothing_are_asked_in_the_right_words(run: Path) -> None:
    assert check_agreement(recipe(run, "blanked", image_size=64, fast_rendering=True)) == Agreement()
    assert check_agreement(recipe(run, "untrained", image_size=64)) == Agreement()
    export(run, {**TRAINED, "instructions": ["file"]}, blank_images=True)
    with pytest.raises(RecipeError, match="instructions file"):
        check_agreement(recipe(run, image_size=64))
    assert check_agreement(recipe(run, image_size=64), "file") == Agreement()
    assert check_agreement(recipe(run.with_name("not_there"))) == Agreement()  # reported by another check


def test_another_image_path_than_that_of_training_is_told(run: Path) -> None:
    job = recipe(run)
    plain = job.model_copy(update={"policies": [job.policies[0].model_copy(update={"images": "plain"})]})
    assert check_agreement(plain).notes == (
        "policies: ours gets its pictures resampled as our own models do (images: plain).",
    )


def test_a_damaged_record_is_named(run: Path) -> None:
    for damage in ("256", {"image_size": "256"}, {"fast_rendering": [0]}, {"image_size": []}):
        export(run, damage)
        with pytest.raises(DataError, match=r"config\.json is damaged"):
            check_agreement(recipe(run))
    (run / "export" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        check_agreement(recipe(run))


def test_without_accepted_differences_older_evaluations_keep_their_hash(run: Path) -> None:
    assert "accept_differences" not in learnt_values(recipe(run))
    assert "accept_differences" in learnt_values(recipe(run, accept_differences=["image_size"]))
