"""The recipes that come with this package, which have names: `posttrain/libero_goal` works from any folder.

In a checkout they are the files of `recipes/`; `pokevla/recipes` is a link to it, which an installed package replaces
by the files.
"""

from __future__ import annotations

import difflib
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "recipes"
PREFIX = "recipes"
"""Folder of the recipes in the repository: a path that begins with it works outside of a checkout too."""
SUFFIX = ".yaml"


def recipe_names() -> list[str]:
    """Names of all packaged recipes, bases included, in order."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob(f"*{SUFFIX}"))


def find_recipe(given: Path) -> Path:
    """The file that `given` means: itself if it exists, otherwise the packaged recipe of this name.

    A name is the path below `recipes/` in the repository, with or without `recipes/` and `.yaml`. `given` itself is
    returned if there is neither; reading it says that it does not exist.
    """
    if given.exists() or given.is_absolute():
        return given
    name = _name_of(given)
    return FOLDER / f"{name}{SUFFIX}" if name in recipe_names() else given


def similar_recipe(given: Path) -> str | None:
    """The packaged recipe whose name is most like that of a file which does not exist."""
    return next(iter(difflib.get_close_matches(_name_of(given), recipe_names(), n=1)), None)


def _name_of(given: Path) -> str:
    return given.as_posix().removeprefix(f"{PREFIX}/").removesuffix(SUFFIX)


def complete_recipe(incomplete: str) -> list[str]:
    """Names that begin with `incomplete`, for the shell; it adds files itself where there is none."""
    return [name for name in recipe_names() if name.startswith(incomplete)]
