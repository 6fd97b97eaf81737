"""What may differ between two starts of one run, and how the difference is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from pokevla.recipe.load import load_recipe, recipe_hash
from pokevla.recipe.schema import PretrainRecipe
from pokevla.recipe.values import (
    ABSENT,
    describe_changes,
    differences,
    flat_values,
    is_neutral,
    learnt_differences,
    learnt_values,
    neutral_settings,
)

TEXT = """\
kind: pretrain
name: x
data: {datasets: [{path: a}, {path: b}]}
optim: {lr: 1e-4}
batch: {global: 8, micro: 4}
steps: 3
"""


def load(tmp_path: Path, *overrides: str) -> PretrainRecipe:
    (tmp_path / "x.yaml").write_text(TEXT)
    recipe = load_recipe(tmp_path / "x.yaml", overrides, {}).recipe
    assert isinstance(recipe, PretrainRecipe)
    return recipe


@pytest.mark.parametrize(
    "override",
    [
        "batch.micro=2",
        "resources.cpu_ranks=4",
        "resources.nodes=2",
        "log.every_steps=1",
        "checkpoint.keep_last=9",
        "data.loader=threads",
        "data.damaged=skip",
        "data.max_damaged=0.5",
        "data.storage.timeout_s=9",
    ],
)
def test_what_does_not_change_what_is_learnt_does_not_change_the_hash(tmp_path: Path, override: str) -> None:
    assert recipe_hash(load(tmp_path, override)) == recipe_hash(load(tmp_path))


@pytest.mark.parametrize(
    "override",
    ["batch.global=16", "optim.lr=1e-3", "zero.stage=3", "precision=fp32", "data.datasets.0.weight=2", "steps=4"],
)
def test_everything_else_changes_the_hash(tmp_path: Path, override: str) -> None:
    assert recipe_hash(load(tmp_path, override)) != recipe_hash(load(tmp_path))


def test_fields_that_came_later_are_not_counted_while_unused(tmp_path: Path) -> None:
    recipe = load(tmp_path)
    assert "name" not in learnt_values(recipe)["optim"]
    assert "log.sinks" not in neutral_settings(recipe)
    assert neutral_settings(load(tmp_path, "log.sinks=[jsonl]"))["log.sinks"] == ["jsonl"]
    assert recipe_hash(load(tmp_path, "log.sinks=[jsonl]")) == recipe_hash(recipe)


def test_values_are_flat_with_list_indices(tmp_path: Path) -> None:
    flat = flat_values(load(tmp_path))
    assert flat["data.datasets.1.path"] == "b"
    assert flat["optim.betas"] == [0.9, 0.999]
    assert flat["batch.global"] == 8


def test_every_changed_setting_is_named_with_both_values(tmp_path: Path) -> None:
    before = neutral_settings(load(tmp_path))
    after = neutral_settings(load(tmp_path, "batch.micro=1", "checkpoint.keep_every_steps=5"))
    assert describe_changes(before, after) == "batch.micro 4 -> 1, checkpoint.keep_every_steps null -> 5"
    assert describe_changes(before, before) == ""


def test_what_differs_between_any_number_of_recipes_is_told_with_every_value() -> None:
    first, second, third = {"a": 1, "b": 2, "c": 3}, {"a": 1, "b": None, "c": 3}, {"a": 1, "c": 4, "d": 5}
    assert differences(first, second, third) == {
        "b": [2, None, ABSENT],
        "c": [3, 3, 4],
        "d": [ABSENT, ABSENT, 5],
    }
    assert differences(first, first) == {}
    assert describe_changes({"a": 1}, {"b": "x"}) == "a 1 -> absent, b absent -> x"


def test_fields_that_make_two_runs_of_two_recipes_are_those_that_are_not_neutral(tmp_path: Path) -> None:
    other = load(tmp_path, "batch.micro=2", "optim.lr=1", "resources.nodes=2", "data.datasets.1.weight=3")
    assert learnt_differences(load(tmp_path), other) == ["data.datasets.1.weight", "optim.lr"]


def test_a_field_is_not_neutral_for_its_name_alone() -> None:
    assert is_neutral("log.every_steps")
    assert not is_neutral("logarithm")
    assert not is_neutral("batch.global")


def test_added_settings_of_the_model_change_the_hash_only_when_they_are_used(tmp_path: Path) -> None:
    names = ("bridge", "oft", "geometry_layer", "seg_token")
    assert not set(names) & set(learnt_values(load(tmp_path))["model"])
    changed = load(tmp_path, "model.bridge.variant=pro", "model.geometry_layer=2", "model.seg_token=false")
    assert {name: learnt_values(changed)["model"].get(name) for name in names} == {
        "bridge": {"variant": "pro"},
        "oft": None,
        "geometry_layer": 2,
        "seg_token": False,
    }


def test_packing_and_the_mean_of_the_loss_are_counted_only_when_they_are_used(tmp_path: Path) -> None:
    plain = load(tmp_path)
    assert not {"loss", "packing"} & set(learnt_values(plain))
    for override in ("packing={tokens: 512}", "loss.average=tokens"):
        assert recipe_hash(load(tmp_path, override)) != recipe_hash(plain)
    assert learnt_differences(plain, load(tmp_path, "loss.average=tokens")) == ["loss.average"]
