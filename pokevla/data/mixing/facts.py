"""The summary of a mixture, counted from the columns of its candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import pokevla
from pokevla.data.dataset import Dataset
from pokevla.data.mixing.candidates import (
    CAPPED,
    LEFT_OUT,
    NOT_WANTED,
    OVER_BUDGET,
    SELECTED,
    UNBALANCED,
    Candidates,
    counted,
)
from pokevla.data.mixing.choices import LETTERS
from pokevla.data.mixing.scanning import NO, YES
from pokevla.data.mixing.summary import (
    ALL_NAME,
    PAPER_SAMPLES,
    AnswerFacts,
    CategoryFacts,
    CountFacts,
    InputFacts,
    ListFacts,
    MixtureSummary,
    StratumFacts,
    in_order,
)
from pokevla.recipe.schema import MixtureRecipe
from pokevla.recipe.values import plain_values
from pokevla.telemetry.code_version import code_commit

_WORDS = {"yes": YES, "no": NO}


def summarise_mixture(
    recipe: MixtureRecipe,
    datasets: Sequence[Dataset],
    lists: Sequence[ListFacts],
    candidates: Candidates,
    strata: list[StratumFacts],
    places: np.ndarray,
) -> MixtureSummary:
    """The summary, but for the datasets that are yet to be written.

    Args:
        candidates: with the status of each sample decided.
        places: (n,) where the right option of each selected question goes (`right_places`).
    """
    counts = _counts(candidates)
    categories = _categories(recipe, counts, strata)
    letters, yes_no = _letters(candidates, places), _yes_no(candidates)
    return MixtureSummary(
        name=recipe.name,
        seed=recipe.seed,
        recipe=plain_values(recipe),
        inputs=[_input(recipe, number, dataset, candidates) for number, dataset in enumerate(datasets)],
        lists=list(lists),
        categories=categories,
        strata=strata,
        counts=counts,
        letters=letters,
        yes_no=yes_no,
        thinned=_thinned(recipe, candidates),
        datasets={},
        notes=[*_short_notes(categories), *_task_notes(recipe, datasets, candidates), *_word_notes(yes_no, counts)],
        made_by={"pokevla": pokevla.__version__, "commit": code_commit()},
    )


def _input(recipe: MixtureRecipe, number: int, dataset: Dataset, candidates: Candidates) -> InputFacts:
    part = slice(candidates.starts[number], candidates.starts[number + 1])
    kinds = np.bincount(candidates.kind[part], minlength=len(candidates.classes))
    sources: dict[str, int] = {}
    for each, count in zip(candidates.classes, kinds.tolist(), strict=True):
        if count:
            sources[each.source] = sources.get(each.source, 0) + count
    info = dataset.info
    alarms = info.get("alarms")
    return InputFacts(
        path=str(recipe.sources[number].path),
        fingerprint=dataset.fingerprint,
        samples=int(part.stop - part.start),
        sources=dict(sorted(sources.items())),
        license=str(info.get("license") or ""),
        rejected=dict(info.get("left_out") or {}),
        alarms=[str(each.get("code", each)) if isinstance(each, dict) else str(each) for each in alarms or ()],
    )


def _counts(candidates: Candidates) -> list[CountFacts]:
    by_kind = counted(candidates, lambda each: (each.category, each.source, each.task, each.answer_kind))
    order = {name: place for place, name in enumerate(in_order(name[0] for name in by_kind))}
    return [
        CountFacts(
            *name,
            read=int(row.sum()),
            not_wanted=int(row[NOT_WANTED]),
            left_out={
                code: int(row[LEFT_OUT + place])
                for place, code in sorted(enumerate(candidates.codes), key=lambda each: each[1])
                if row[LEFT_OUT + place]
            },
            capped=int(row[CAPPED]),
            unbalanced=int(row[UNBALANCED]),
            over_budget=int(row[OVER_BUDGET]),
            selected=int(row[SELECTED]),
        )
        for name, row in sorted(by_kind.items(), key=lambda each: (order[each[0][0]], each[0]))
    ]


def _categories(
    recipe: MixtureRecipe, counts: Sequence[CountFacts], strata: Sequence[StratumFacts]
) -> list[CategoryFacts]:
    facts = []
    for name in in_order(recipe.categories):
        selected = sum(row.selected for row in counts if row.category == name)
        folder = ALL_NAME if recipe.datasets == "one" else name
        facts.append(
            CategoryFacts(
                category=name,
                budget=recipe.categories[name].budget,
                paper=PAPER_SAMPLES[name],
                available=sum(row.available for row in strata if row.category == name),
                selected=selected,
                dataset=folder if selected else None,
            )
        )
    return facts


def _letters(candidates: Candidates, places: np.ndarray) -> list[AnswerFacts]:
    """By number of options that can change places; 0 for those that cannot."""
    is_choice, is_selected = candidates.letter >= 0, candidates.status == SELECTED
    after = np.where(places >= 0, places, candidates.letter)
    facts = []
    for name, kinds in _tasks(candidates).items():
        its = np.flatnonzero(is_choice & np.isin(candidates.kind, kinds))
        for options in np.unique(candidates.options[its]).tolist():
            rows = its[candidates.options[its] == options]
            taken = rows[is_selected[rows]]
            fixed = int((places[taken] < 0).sum())
            facts.append(
                AnswerFacts(*name, options, _by_letter(candidates.letter[rows]), _by_letter(after[taken]), fixed)
            )
    return facts


def _by_letter(places: np.ndarray) -> dict[str, int]:
    return {LETTERS[place]: count for place, count in enumerate(np.bincount(places).tolist()) if count}


def _yes_no(candidates: Candidates) -> list[AnswerFacts]:
    is_selected = candidates.status == SELECTED
    facts = []
    for name, kinds in _tasks(candidates).items():
        rows = np.flatnonzero((candidates.word > 0) & np.isin(candidates.kind, kinds))
        if len(rows):
            taken = rows[is_selected[rows]]
            before, after = (
                {word: int((candidates.word[each] == code).sum()) for word, code in _WORDS.items()}
                for each in (rows, taken)
            )
            facts.append(AnswerFacts(*name, 0, before, after))
    return facts


def _tasks(candidates: Candidates) -> dict[tuple[str, str, str], list[int]]:
    """Numbers of the classes of each category, source and task, in order."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for number, each in enumerate(candidates.classes):
        found.setdefault((each.category, each.source, each.task), []).append(number)
    order = {name: place for place, name in enumerate(in_order(name[0] for name in found))}
    return dict(sorted(found.items(), key=lambda each: (order[each[0][0]], each[0])))


def _thinned(recipe: MixtureRecipe, candidates: Candidates) -> dict[str, int]:
    most = recipe.answers.max_points
    if most is None:
        return {}
    rows = np.flatnonzero((candidates.status == SELECTED) & (candidates.points > most))
    counts = np.bincount(candidates.kind[rows], minlength=len(candidates.classes))
    found: dict[str, int] = {}
    for each, count in zip(candidates.classes, counts.tolist(), strict=True):
        if count:
            found[each.category] = found.get(each.category, 0) + count
    return dict(sorted(found.items()))


def _short_notes(categories: Sequence[CategoryFacts]) -> list[str]:
    return [
        f"{each.category}: the sources have {each.selected:,} samples of the budget of {each.budget:,}; "
        f"{each.missing:,} are missing."
        for each in categories
        if each.missing > 0
    ]


def _task_notes(recipe: MixtureRecipe, datasets: Sequence[Dataset], candidates: Candidates) -> list[str]:
    """Names in the recipe that nothing has."""
    notes = []
    for number, (source, dataset) in enumerate(zip(recipe.sources, datasets, strict=True)):
        part = slice(candidates.starts[number], candidates.starts[number + 1])
        tasks = {candidates.classes[kind].task for kind in np.unique(candidates.kind[part]).tolist()}
        notes += [
            f"sources.{number}.at_most names the task {task}; {dataset.root.name} has {', '.join(sorted(tasks))}."
            for task in source.at_most
            if task not in tasks
        ]
    return notes


def _word_notes(yes_no: Sequence[AnswerFacts], counts: Sequence[CountFacts]) -> list[str]:
    unbalanced: dict[Any, int] = {}
    for row in counts:
        name = (row.category, row.source, row.task)
        unbalanced[name] = unbalanced.get(name, 0) + row.unbalanced
    return [
        f"{each.source}, task {each.task}: all yes or all no, so none of these is taken; `yes_no: as_is` takes them."
        for each in yes_no
        if min(each.before.values()) == 0 and unbalanced[each.category, each.source, each.task]
    ]
