"""What a run directory says about itself. No torch: it answers at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pokevla.errors import UsageError
from pokevla.recipe.load import load_recipe
from pokevla.recipe.schema import PosttrainRecipe, PretrainRecipe

RECIPE = "recipe.yaml"
"""The resolved recipe of a run."""
EXPORT = "export"
"""Folder of the exported model inside a run directory. It is there when, and only when, the run is finished."""


def read_run_recipe(run_dir: Path, overrides: Sequence[str] = ()) -> PretrainRecipe | PosttrainRecipe:
    """The recipe of a training run, with overrides (`field=value`) put in.

    Raises:
        UsageError: `run_dir` is not a run directory of training.
        RecipeError: an override that makes no sense.
    """
    path = run_dir / RECIPE
    if not path.is_file():
        raise UsageError(f"{run_dir} is not a run directory: it has no recipe.yaml.", "Name one below `runs/`.")
    recipe = load_recipe(path, overrides).recipe
    if not isinstance(recipe, PretrainRecipe | PosttrainRecipe):
        raise UsageError(f"{run_dir} is a run of kind {recipe.kind}, not of training.")
    return recipe
