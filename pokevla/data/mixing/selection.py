"""Which samples make up a mixture: a pure function of the recipe, the keys of the samples, and what is known of them.

Neither the shards nor the processes that read them play a part, nor the order of the inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pokevla.data.mixing.allocation import paired_shares, root_weights, share_budget
from pokevla.data.mixing.candidates import (
    OPEN,
    OVER_BUDGET,
    SELECTED,
    UNBALANCED,
    Candidates,
    smallest,
    step_hash,
)
from pokevla.data.mixing.scanning import NO, YES
from pokevla.data.mixing.summary import StratumFacts, in_order
from pokevla.errors import RecipeError
from pokevla.recipe.data_sections.mixing import CategoryConfig, MixtureSource
from pokevla.recipe.schema import MixtureRecipe

Stratum = tuple[str, str, str]
"""Category, source, task."""


@dataclass
class _Share:
    """The open samples of a stratum."""

    name: Stratum
    config: MixtureSource
    yes: np.ndarray  # rows
    no: np.ndarray
    other: np.ndarray

    @property
    def size(self) -> int:
        return len(self.yes) + len(self.no) + len(self.other)


def select(recipe: MixtureRecipe, candidates: Candidates) -> list[StratumFacts]:
    """Set the status of all open samples; returns what each source and task was given, in order.

    Raises RecipeError: inputs with samples of one source and task have other bounds.
    """
    facts: list[StratumFacts] = []
    shares = _shares(recipe, candidates)
    for category in in_order(recipe.categories):
        its = [share for share in shares if share.name[0] == category]
        facts += _shared_out(recipe.categories[category], its, candidates)
    return facts


def _shares(recipe: MixtureRecipe, candidates: Candidates) -> list[_Share]:
    """The strata with their open samples, sorted by name, after yes and no were balanced."""
    names = sorted({(each.category, each.source, each.task) for each in candidates.classes})
    numbers = {name: number for number, name in enumerate(names)}
    of_class = np.array([numbers[each[:3]] for each in candidates.classes], dtype=np.int32)
    configs = _configs(recipe, candidates, names, of_class)
    rows = np.flatnonzero(candidates.status == OPEN)
    strata = of_class[candidates.kind[rows]]
    order = np.argsort(strata, kind="stable")
    bounds = np.searchsorted(strata[order], np.arange(len(names) + 1))
    shares = []
    for number, name in enumerate(names):
        its = rows[order[bounds[number] : bounds[number + 1]]]
        config = configs.get(name)
        if config is not None and len(its):
            shares.append(_balanced(name, config, its, candidates))
    return shares


def _configs(
    recipe: MixtureRecipe, candidates: Candidates, names: Sequence[Stratum], of_class: np.ndarray
) -> dict[Stratum, MixtureSource]:
    """The bounds of each stratum: those of the input that holds it."""
    found: dict[Stratum, int] = {}
    for number, source in enumerate(recipe.sources):
        part = slice(candidates.starts[number], candidates.starts[number + 1])
        for place in np.unique(of_class[candidates.kind[part]]).tolist():
            first = recipe.sources[found.setdefault(names[place], number)]
            if _bounds(first) != _bounds(source):
                raise RecipeError(
                    f"{first.path} and {source.path} both hold {names[place][1]}, task {names[place][2]}, and the "
                    "recipe gives them other bounds.",
                    "Give both the same whole, weight, at_most, yes_no and questions_per_sample.",
                )
    return {name: recipe.sources[number] for name, number in found.items()}


def _bounds(source: MixtureSource) -> tuple[object, ...]:
    return source.whole, source.weight, source.at_most, source.yes_no, source.questions_per_sample


def _balanced(name: Stratum, config: MixtureSource, rows: np.ndarray, candidates: Candidates) -> _Share:
    none = rows[:0]
    if config.yes_no == "as_is":
        return _Share(name, config, none, none, rows)
    words = candidates.word[rows]
    yes, no = rows[words == YES], rows[words == NO]
    pairs = min(len(yes), len(no))
    candidates.status[np.concatenate((yes, no))] = UNBALANCED
    yes, no = (smallest(each, candidates.ids, "balance", pairs) for each in (yes, no))
    candidates.status[np.concatenate((yes, no))] = OPEN
    return _Share(name, config, yes, no, rows[words == 0])


def _shared_out(config: CategoryConfig, shares: Sequence[_Share], candidates: Candidates) -> list[StratumFacts]:
    sizes = np.array([share.size for share in shares], dtype=np.int64)
    most = np.array(
        [min(share.size, share.config.at_most.get(share.name[2], share.size)) for share in shares], np.int64
    )
    least = np.array(
        [m if s.config.whole else min(config.floor, m) for s, m in zip(shares, most, strict=True)], np.int64
    )
    factors = np.array([share.config.weight for share in shares], np.float64)
    weights = root_weights(sizes, config.exponent, factors)
    given = share_budget(config.budget, weights, least, most)
    for share, count in zip(shares, given.tolist(), strict=True):
        counts = paired_shares(count, len(share.yes), len(share.no), len(share.other))
        for rows, taken in zip((share.yes, share.no, share.other), counts, strict=True):
            candidates.status[rows] = OVER_BUDGET
            candidates.status[smallest(rows, candidates.ids, "budget", taken)] = SELECTED
    return [
        StratumFacts(
            *share.name,
            weight=round(float(weights[place]), 6),
            least=int(least[place]),
            available=int(sizes[place]),
            most=int(most[place]),
            selected=int(given[place]),
        )
        for place, share in enumerate(shares)
    ]


def output_order(candidates: Candidates, category: str | None) -> np.ndarray:
    """Selected samples of a category, or of all, in the order in which they are written: that of a hash, so that what
    is read together is of many sources."""
    is_its = np.array([category in (None, each.category) for each in candidates.classes], dtype=bool)
    rows = np.flatnonzero((candidates.status == SELECTED) & is_its[candidates.kind])
    return smallest(rows, candidates.ids, "order", len(rows))


def right_places(candidates: Candidates, letters: Literal["uniform", "as_is"]) -> np.ndarray:
    """(n,) int8: where the right option of each selected question goes, -1 for samples that stay as they are.

    With `uniform`, among the questions of a source and task with the same number of options each place comes equally
    often, up to one.
    """
    places = np.full(len(candidates), -1, dtype=np.int8)
    if letters == "as_is":
        return places
    rows = np.flatnonzero((candidates.status == SELECTED) & (candidates.options > 0))
    names = sorted({(each.source, each.task) for each in candidates.classes})
    of_class = np.array([names.index((each.source, each.task)) for each in candidates.classes], dtype=np.int64)
    groups = of_class[candidates.kind[rows]] * 16 + candidates.options[rows] if len(rows) else rows
    order = np.lexsort((step_hash(candidates.ids[rows], "letter"), groups))
    rows, groups = rows[order], groups[order]
    if len(rows):
        is_first = np.concatenate(([True], groups[1:] != groups[:-1]))
        rank = np.arange(len(rows)) - np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
        places[rows] = rank % candidates.options[rows]
    return places
