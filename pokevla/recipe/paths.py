"""Paths in recipes and profiles: expanded when they are read, and kept absolute in what a job reads later."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from pokevla.errors import UsageError
from pokevla.files.paths import absolute, expand_path, literal_path
from pokevla.files.remote.urls import UrlPath, as_url, is_url

ENVIRONMENT = "environment"
"""Key of the validation context: the variables that paths may name, by default those of this process."""


def _expand(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    environment: Mapping[str, str] = (info.context or {}).get(ENVIRONMENT, os.environ)
    try:
        return expand_path(value, environment)
    except UsageError as error:
        raise PydanticCustomError("path_form", "{reason}", {"reason": str(error).rstrip(".")}) from None


def _local(value: Any, info: ValidationInfo) -> Any:
    text = _expand(value, info)
    if isinstance(text, str) and is_url(text):
        raise PydanticCustomError("path_form", "a URL can name a dataset or a cache, not this")
    return text


def _local_or_url(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    text = _expand(value, info)
    if not isinstance(text, str | UrlPath) or not is_url(text):
        return handler(text)
    try:
        return as_url(text)
    except UsageError as error:
        raise PydanticCustomError("path_form", "{reason}", {"reason": str(error).rstrip(".")}) from None


_WRITTEN = PlainSerializer(literal_path, return_type=str, when_used="json")
UserPath = Annotated[Path, BeforeValidator(_local), _WRITTEN]
"""A path in which `~`, `~user`, `$NAME` and `${NAME}` are expanded. In JSON and YAML it is written so that reading
gives the same path again."""
DataPath = Annotated[Path, WrapValidator(_local_or_url), _WRITTEN]
"""The same, or a URL of an object store or web server (`pokevla.files.remote.urls`), without credentials."""

AS_WRITTEN = "paths_as_written"
PathsAsWritten = Annotated[
    dict[str, str],
    Field(
        description="Written by pokevla into the recipe of a run or job, whose paths are absolute: how the original "
        "recipe spelled them, by dotted field. The hash of the recipe is made of these, so a run stays the same run "
        "wherever its data lies."
    ),
]
Recipe = TypeVar("Recipe", bound=BaseModel)


def paths_of(recipe: BaseModel) -> dict[str, Path]:
    """Every path of a recipe by dotted field."""
    found: dict[str, Path] = {}

    def note(field: str, path: Path) -> Path:
        found[field] = path
        return path

    _map_paths(recipe, "", note)
    return found


def with_absolute_paths(recipe: Recipe, place: Callable[[str, Path], Path] = lambda _, path: absolute(path)) -> Recipe:
    """The same recipe with absolute paths, so that it can be read from any working directory. Its hash is the same.

    `place(field, path)` gives the absolute path; by default relative ones begin in the working directory.
    """
    moved = _map_paths(recipe, "", lambda field, path: path if isinstance(path, UrlPath) else place(field, path))
    after = paths_of(moved)
    spelled = {field: literal_path(path) for field, path in paths_of(recipe).items() if after[field] != path}
    return moved.model_copy(update={AS_WRITTEN: spelled | getattr(recipe, AS_WRITTEN)}) if spelled else recipe


def _map_paths(value: Any, field: str, change: Callable[[str, Path], Path]) -> Any:
    """A copy of a recipe, or of a part of it, with `change` applied to each path."""
    if isinstance(value, Path):
        return change(field, value)
    if isinstance(value, BaseModel):
        parts = {name: _map_paths(part, f"{field}.{name}".lstrip("."), change) for name, part in value}
        return value.model_copy(update=parts)
    if isinstance(value, dict):
        return {name: _map_paths(part, f"{field}.{name}", change) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_map_paths(part, f"{field}.{index}", change) for index, part in enumerate(value))
    return value
