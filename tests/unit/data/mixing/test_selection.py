"""Which samples are chosen: a function of their keys, whatever their order and their shards."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pokevla.data.mixing.candidates import OPEN, OVER_BUDGET, SELECTED, UNBALANCED, Candidates, _cap, step_hash
from pokevla.data.mixing.scanning import NO, YES, SampleClass
from pokevla.data.mixing.selection import output_order, right_places, select
from pokevla.errors import RecipeError
from pokevla.recipe.data_sections.mixing import CapConfig
from pokevla.recipe.schema import MixtureRecipe

CLASSES = [
    SampleClass("general", "one", "question", "text", "train"),
    SampleClass("grounding", "one", "point", "point", "train"),
    SampleClass("grounding", "two", "point", "point", "train"),
    SampleClass("grounding", "two", "box", "box", "val"),
    SampleClass("reasoning", "two", "choice", "choice", "train"),
    SampleClass("reasoning", "two", "choice", "text", "train"),
]


def recipe(budget: int = 40, **fields: Any) -> MixtureRecipe:
    categories = {name: {"budget": budget} for name in ("general", "grounding", "reasoning")}
    values = {"kind": "mixture", "name": "m", "categories": categories, **fields}
    return MixtureRecipe.model_validate({"sources": [{"path": Path(f"s{n}")} for n in range(2)], **values})


def candidates(numbers: list[int], seed: int = 0, split: int | None = None) -> Candidates:
    """Samples by number, of which everything follows."""
    rng = np.random.default_rng(seed)
    table = {name: rng.integers(0, high, 2_000) for name, high in (("kind", 6), ("word", 3), ("options", 5))}
    ids = rng.integers(0, 2**64, 2_000, dtype=np.uint64)
    kind = table["kind"][numbers].astype(np.int32)
    is_choice = kind == 4
    options = np.where(is_choice & (table["options"][numbers] > 1), table["options"][numbers], 0).astype(np.int8)
    return Candidates(
        classes=CLASSES,
        codes=[],
        starts=np.array([0, len(numbers) // 2 if split is None else split, len(numbers)]),
        ids=ids[numbers],
        kind=kind,
        word=np.where((kind == 0) | (kind >= 4), table["word"][numbers], 0).astype(np.int8),
        options=options,
        letter=np.where(is_choice, 0, -1).astype(np.int8),
        points=np.zeros(len(numbers), dtype=np.int16),
        status=np.zeros(len(numbers), dtype=np.int8),
    )


NUMBERS = st.lists(st.integers(0, 1_999), min_size=1, max_size=400, unique=True)


@settings(max_examples=60)
@given(NUMBERS, st.integers(1, 200), st.randoms(use_true_random=False), st.integers(0, 400))
def test_the_choice_does_not_depend_on_the_order_or_on_the_inputs_bounds(
    numbers: list[int], budget: int, random: Any, split: int
) -> None:
    first, shuffled = candidates(numbers), list(numbers)
    random.shuffle(shuffled)
    second = candidates(shuffled, split=min(split, len(numbers)))
    wanted = recipe(budget)
    assert select(wanted, first) == select(wanted, second)
    by_number = dict(zip(numbers, first.status.tolist(), strict=True))
    assert dict(zip(shuffled, second.status.tolist(), strict=True)) == by_number
    for category in (None, "general", "grounding", "reasoning"):
        in_order = [[numbers[row] for row in output_order(first, category)]]
        assert in_order == [[shuffled[row] for row in output_order(second, category)]]
    places = dict(zip(numbers, right_places(first, "uniform").tolist(), strict=True))
    assert dict(zip(shuffled, right_places(second, "uniform").tolist(), strict=True)) == places


@settings(max_examples=60)
@given(NUMBERS, st.integers(1, 200))
def test_budgets_are_kept_and_yes_and_no_are_equal(numbers: list[int], budget: int) -> None:
    made = candidates(numbers)
    facts = select(recipe(budget), made)
    assert OPEN not in made.status
    for category in ("general", "grounding", "reasoning"):
        its = [each for each in facts if each.category == category]
        assert sum(each.selected for each in its) == min(budget, sum(each.available for each in its))
        rows = output_order(made, category)
        assert len(rows) == sum(each.selected for each in its)
        words = Counter(made.word[rows].tolist())
        assert abs(words[YES] - words[NO]) <= 1
    for each in facts:
        kinds = [n for n, c in enumerate(CLASSES) if c[:3] == (each.category, each.source, each.task)]
        its = np.isin(made.kind, kinds)
        assert (its & np.isin(made.status, (SELECTED, OVER_BUDGET))).sum() == each.available
        assert (its & (made.status == SELECTED)).sum() == each.selected


def test_more_budget_takes_what_less_budget_took() -> None:
    small, large = (candidates(list(range(2_000))) for _ in range(2))
    select(recipe(100), small)
    select(recipe(150), large)
    taken = small.status == SELECTED
    assert taken.sum() == 300
    assert (large.status[taken] == SELECTED).mean() == 1.0


def test_another_seed_takes_others() -> None:
    first = candidates(list(range(2_000)))
    second = replace(candidates(list(range(2_000))), ids=first.ids[::-1].copy())
    for each in (first, second):
        select(recipe(100), each)
    both = ((first.status == SELECTED) & (second.status == SELECTED)).sum()
    assert 20 < both < 120  # of 300, of some 1,600


def test_letters_are_uniform_in_each_source_and_task() -> None:
    made = candidates(list(range(2_000)))
    select(recipe(10_000), made)
    places = right_places(made, "uniform")
    for options in (2, 3, 4):
        rows = np.flatnonzero((made.options == options) & (made.status == SELECTED))
        counts = np.bincount(places[rows], minlength=options)
        assert len(rows) > 30
        assert len(counts) == options
        assert counts.max() - counts.min() <= 1
    assert (places[(made.options == 0) | (made.status != SELECTED)] == -1).all()
    assert (right_places(made, "as_is") == -1).all()


def test_as_is_keeps_all_answers() -> None:
    made = candidates(list(range(2_000)))
    select(recipe(10_000, sources=[{"path": Path(f"s{n}"), "yes_no": "as_is"} for n in range(2)]), made)
    assert UNBALANCED not in made.status
    assert (made.status == SELECTED).all()


def test_a_source_taken_whole_and_bounds_of_tasks() -> None:
    made = candidates(list(range(2_000)), split=2_000)
    source = {"at_most": {"box": 7}, "yes_no": "as_is"}
    wanted = recipe(400, sources=[{"path": Path(f"s{n}"), **source} for n in range(2)])
    by_task = {(f.category, f.source, f.task): f for f in select(wanted, made)}
    assert by_task["grounding", "two", "box"].selected == by_task["grounding", "two", "box"].most == 7
    assert by_task["grounding", "two", "box"].is_exhausted
    assert not by_task["grounding", "one", "point"].is_exhausted
    again = candidates(list(range(2_000)), split=2_000)
    for each in select(recipe(400, sources=[{"path": Path(f"s{n}"), "whole": True} for n in range(2)]), again):
        assert each.least == each.most == each.available


def test_two_inputs_with_one_source_need_the_same_bounds() -> None:
    wanted = recipe()
    other = wanted.sources[1].model_copy(update={"whole": True})
    with pytest.raises(RecipeError, match="s0 and s1 both hold"):
        select(wanted.model_copy(update={"sources": [wanted.sources[0], other]}), candidates(list(range(2_000))))


@settings(max_examples=60)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=200), st.integers(1, 5), st.randoms(use_true_random=False))
def test_a_cap_keeps_the_same_samples_of_each_image_in_any_order(images: list[int], most: int, random: Any) -> None:
    ids = np.random.default_rng(1).integers(0, 2**64, len(images), dtype=np.uint64)

    def capped(order: list[int]) -> dict[int, int]:
        status = np.zeros(len(order), dtype=np.int8)
        columns = {"id": ids[order], "image": np.array(images, dtype=np.uint64)[order]}
        _cap(status, columns, CapConfig(by="image", at_most=most))
        return dict(zip(order, status.tolist(), strict=True))

    order = list(range(len(images)))
    status = capped(order)
    left = Counter(image for number, image in enumerate(images) if status[number] == OPEN)
    assert left == {image: min(most, count) for image, count in Counter(images).items()}
    random.shuffle(order)
    assert capped(order) == status


def test_a_run_ends_where_the_question_changes() -> None:
    runs = np.array([5, 5, 5, 9, 9, 5, 5], dtype=np.uint64)
    status = np.zeros(7, dtype=np.int8)
    status[1] = SELECTED  # decided before: it does not divide the run
    _cap(status, {"id": np.arange(7, dtype=np.uint64), "run": runs}, CapConfig(by="run", at_most=1))
    assert [(status[part] == OPEN).sum() for part in (slice(0, 3), slice(3, 5), slice(5, 7))] == [1, 1, 1]


def test_the_steps_draw_independently() -> None:
    ids = np.random.default_rng(2).integers(0, 2**64, 20_000, dtype=np.uint64)
    one, other = (step_hash(ids, step).argsort().argsort() for step in ("cap", "budget"))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
    assert len(np.unique(step_hash(ids, "order"))) == len(ids)
