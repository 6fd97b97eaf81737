"""Which tasks a recipe selects."""

from __future__ import annotations

import pytest

from pokevla.recipe.eval_sections.trials import SubsetConfig, TrialsConfig
from pokevla.simulation.benchmark import Benchmark, TaskSource
from pokevla.simulation.libero_plus.benchmark import LIBERO_PLUS
from pokevla.simulation.libero_plus.names import CATEGORIES
from pokevla.simulation.libero_plus.selection import selected_tasks, stratified_subset, task_source
from tests.libero_plus import (
    ADDED,
    BACKGROUND,
    CAMERA,
    LANGUAGE,
    LIGHT,
    MOVED,
    NOISE,
    ROBOT,
    official_checkout,
    sample_source,
)  # fmt: skip

MANY = {index: CATEGORIES[index % 7] for index in range(700)}


def test_a_subset_has_as_many_of_each_category_and_depends_on_the_seed_only() -> None:
    chosen = stratified_subset(MANY, CATEGORIES, 20, 7, "libero_goal")
    assert len(set(chosen)) == 140
    assert all(sum(MANY[index] == name for index in chosen) == 20 for name in CATEGORIES)
    assert chosen == sorted(chosen)
    assert chosen != stratified_subset(MANY, CATEGORIES, 20, 8, "libero_goal")
    assert chosen != stratified_subset(MANY, CATEGORIES, 20, 7, "libero_10")


def test_a_part_of_the_categories_has_the_tasks_of_the_whole_subset() -> None:
    whole = stratified_subset(MANY, CATEGORIES, 20, 7, "libero_goal")
    part = stratified_subset(MANY, CATEGORIES[2:4], 20, 7, "libero_goal")
    assert part == [index for index in whole if MANY[index] in CATEGORIES[2:4]]


def test_a_category_that_has_too_few_gives_all() -> None:
    assert stratified_subset({3: "a", 1: "a", 2: "b"}, ("a", "b"), 5, 7, "s") == [1, 2, 3]


def _sampled(monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    return LIBERO_PLUS.configured(sample_source(monkeypatch))


def test_perturbations_select_their_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = _sampled(monkeypatch)
    trials = TrialsConfig(suite="libero_object", perturbations=["Objects Layout", "Camera Viewpoints"])
    assert selected_tasks(trials, "libero_object", benchmark) == [CAMERA, MOVED, ADDED]
    assert selected_tasks(TrialsConfig(suite="libero_object"), "libero_object", benchmark) == list(range(8))
    assert selected_tasks(TrialsConfig(suite="libero_object", tasks=[4, 2]), "libero_object", benchmark) == [4, 2]


def test_the_source_holds_what_the_recipe_says() -> None:
    trials = TrialsConfig(suite="libero_object", libero_plus="/a", instructions="bddl", robot_init="full")  # pyright: ignore[reportArgumentType]
    source = task_source(trials)
    assert (str(source.checkout), source.assets, source.instructions, source.robot_init) == ("/a", None, "bddl", "full")


def test_the_papers_subset_has_80_official_tasks_of_each_perturbation_and_suite() -> None:
    benchmark = LIBERO_PLUS.configured(TaskSource(checkout=official_checkout()))
    for suite in benchmark.suites:
        chosen = selected_tasks(TrialsConfig(suite=suite, subset=SubsetConfig()), suite, benchmark)
        assert len(chosen) == 560
        found = [benchmark.get_task(suite, index).perturbation for index in chosen]
        assert {name: found.count(name) for name in CATEGORIES} == dict.fromkeys(CATEGORIES, 80)


def test_kinship_tells_what_an_environment_can_become_cheaply(monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = _sampled(monkeypatch)
    kin = {task: benchmark.kinship("libero_object", task) for task in range(8)}
    assert kin[CAMERA] == kin[LANGUAGE] == kin[NOISE]
    assert kin[ROBOT] == kin[MOVED] == kin[CAMERA][:2]
    assert kin[LIGHT] == kin[BACKGROUND] == kin[ADDED] == ()
    assert "cream_cheese" in kin[CAMERA][1]
