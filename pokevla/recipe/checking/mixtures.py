"""What the recipe of a mixture names: are its sources datasets of questions, and its lists there?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from pokevla.errors import DataError
from pokevla.recipe.checking.datasets import read_dataset_info
from pokevla.recipe.schema import MixtureRecipe

LIST_FILES = ("left_out.parquet", "report.json")
"""Files of a list of samples to leave out (`pokevla.data.screening.left_out`)."""


def mixed_categories(recipe: MixtureRecipe) -> Iterator[tuple[str, str]]:
    """(field, sentence) for each source that names a category without a budget."""
    for number, source in enumerate(recipe.sources):
        for name in source.categories or ():
            if name not in recipe.categories:
                field = f"sources.{number}.categories"
                yield field, f"{field} names {name}, which has no budget. Add it to categories, or leave it out here."


def mixture_checks(recipe: MixtureRecipe) -> Iterator[Callable[[], list[str]]]:
    """Checks of the inputs, each of which returns remarks or raises DataError."""
    for number, source in enumerate(recipe.sources):
        yield lambda number=number, path=source.path: _source(number, path)
    for number, path in enumerate(recipe.left_out):
        yield lambda number=number, path=path: _list(number, path)
    yield lambda: _size(recipe)


def _source(number: int, path: Path) -> list[str]:
    info = read_dataset_info(path)
    if info.kind != "vlm":
        raise DataError(f"sources.{number}: {path} is a {info.kind} dataset, it has no questions.", "Leave it out.")
    return []


def _list(number: int, path: Path) -> list[str]:
    folder = path if path.is_dir() else path.parent
    for name in LIST_FILES:
        if not (folder / name).is_file():
            raise DataError(
                f"left_out.{number}: {folder / name} is missing.",
                "Make the list with --out of `pokevla data duplicates` or `pokevla data leakage`.",
            )
    return []


def _size(recipe: MixtureRecipe) -> list[str]:
    """A remark if all sources together have fewer samples than the budgets."""
    have = sum(read_dataset_info(source.path).num_samples for source in recipe.sources)
    budget = sum(category.budget for category in recipe.categories.values())
    return [f"the sources hold {have:,} samples, the budgets are {budget:,}."] if have < budget else []
