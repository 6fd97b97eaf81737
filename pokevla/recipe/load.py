"""Loads a YAML file as a checked recipe: `extends`, variables, overrides, validation, and the origin of each value.

loaded = load_recipe(Path("recipes/demo/posttrain.yaml"), ["optim.lr=3e-4"])
loaded.recipe.optim.lr, loaded.origins["optim.lr"]      # (0.0003, "override")
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from pokevla.errors import RecipeError, UsageError
from pokevla.files.paths import expand_path
from pokevla.files.remote.urls import redacted
from pokevla.files.texts import shorten
from pokevla.packaged_recipes import find_recipe
from pokevla.parts import import_extensions
from pokevla.recipe.checking.consistency import inconsistencies
from pokevla.recipe.document import (
    Document,
    KeyPath,
    Template,
    dotted,
    expand,
    expand_template,
    merge,
    parse_value,
    read_document,
)
from pokevla.recipe.kinds import KINDS, AnyRecipe
from pokevla.recipe.messages import messages, nearest
from pokevla.recipe.paths import AS_WRITTEN, ENVIRONMENT
from pokevla.recipe.values import LENGTH, learnt_values, plain_values
from pokevla.recipe.yaml_nodes import MAX_DEPTH

OVERRIDE = "override"
MAX_BASES = 32
"""Longest chain of `extends`."""


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe and where it came from."""

    recipe: AnyRecipe
    path: Path
    """The file as given by the caller, or that of the packaged recipe."""
    origins: dict[str, str]
    """Dotted field -> `file:line`, `override` or `default`."""


def load_recipe(
    path: Path, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> LoadedRecipe:
    """Load `path`, a file or the name of a packaged recipe, with its bases, variables and overrides.

    `overrides` are `field=value` with a YAML value (`optim.lr=3e-4`, `data.datasets.0.weight=2`); `environment`
    defaults to the process's. RecipeError lists every mistake, one line each: `file:line: sentence`.
    """
    loaded, wrong = load_with_findings(path, overrides, environment)
    if wrong:
        raise RecipeError("\n".join(wrong))
    return loaded


def load_with_findings(
    path: Path, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> tuple[LoadedRecipe, list[str]]:
    """Like `load_recipe`, but rules between fields that are broken are returned, as `file:line: sentence`: the files
    that such a recipe names can still be checked. RecipeError for a recipe whose fields are wrong."""
    variables = os.environ if environment is None else environment
    path = find_recipe(Path(path))
    document = merge_extends(path, variables)
    for override in overrides:
        _apply_override(document, override)
    return _validated(expand(document, variables), path, variables)


def merge_extends(path: Path, environment: Mapping[str, str]) -> Document:
    """`path` on top of the files of its `extends`; later bases win over earlier ones, the file over all.

    RecipeError on a cycle (shown link by link) and on a base that does not exist. Variables stay unexpanded.
    """
    return _merged(path, environment, (), {})


def _merged(
    path: Path, environment: Mapping[str, str], chain: tuple[Path, ...], known: dict[Path, Document]
) -> Document:
    """`known`: what was merged so far. A base that many files share is read once."""
    real = path.resolve()
    if real in known:
        return known[real]
    if len(chain) > MAX_BASES:
        raise RecipeError(f"{chain[-1]}: `extends` goes through more than {MAX_BASES} files.", "Merge some of them.")
    if real in [link.resolve() for link in chain]:
        shown = " -> ".join(str(link) for link in (*chain, path))
        raise RecipeError(f"{chain[-1]}: `extends` is circular: {shown}.", "Remove one of the links.")
    document = read_document(path)
    bases = document.values.pop("extends", [])
    location = document.locations.pop(("extends",), "")
    for key in [key for key in document.locations if key[:1] == ("extends",)]:
        del document.locations[key]
    bases = [bases] if isinstance(bases, str | Template) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str | Template) for base in bases):
        raise RecipeError(f"{location}: extends should be a list of recipe files.")
    merged = Document({})
    for base in bases:
        try:
            name = str(expand_template(base, environment)) if isinstance(base, Template) else base
            name = expand_path(name, environment)
        except KeyError as error:
            raise RecipeError(f"{location}: extends uses the variable {error.args[0]}, which is not set.") from None
        except UsageError as error:
            raise RecipeError(f"{location}: extends: {error}") from None
        target = Path(os.path.normpath(path.parent / name))
        packaged = find_recipe(Path(name))
        target = target if target.is_file() or not packaged.is_file() else packaged
        if not target.is_file():
            raise RecipeError(
                f"{location}: extends names {target}, which does not exist. {_similar_file(target)}".strip()
            )
        merged = merge(merged, _merged(target, environment, (*chain, path), known))
    known[real] = merge(merged, document)
    return known[real]


def _similar_file(target: Path) -> str:
    names = [file.name for file in target.parent.glob("*.yaml")] if target.parent.is_dir() else []
    guess = nearest(target.name, names)
    return f"Did you mean {guess}?" if guess else ""


def _apply_override(document: Document, override: str) -> None:
    """Set one `field=value` in the document. RecipeError if it has no `=`, or a list index is out of range."""
    name, equals, text = override.partition("=")
    if not equals or not name.strip():
        raise RecipeError(f"override {shorten(repr(override), 200)} should be field=value, for example optim.lr=3e-4.")
    keys = name.strip().split(".")
    if len(keys) > MAX_DEPTH:
        raise RecipeError(f"override {shorten(override)}: no field lies that deep.")
    value = parse_value(text, f"override {shorten(override, 200)}")
    owner: Any = document.values
    path: KeyPath = ()
    for key in keys[:-1]:
        part = _index(owner, key, override)
        path = (*path, part)
        if isinstance(owner, dict) and not isinstance(owner.get(part), dict | list):
            owner[part] = {}
        owner = cast(Any, owner)[part]
        if not isinstance(owner, dict | list):
            raise RecipeError(
                f"override {shorten(override, 200)}: {shorten(dotted(path))} is one value, it has no fields."
            )
    last = _index(owner, keys[-1], override)
    path = (*path, last)
    for stale in [location for location in document.locations if location[: len(path)] == path]:
        del document.locations[stale]
    cast(Any, owner)[last] = value
    document.locations[path] = f"override {shorten(override, 200)}"


def _index(owner: dict[str, Any] | list[Any], key: str, override: str) -> str | int:
    if isinstance(owner, dict):
        return key
    if not key.isdecimal() or len(key) > 9 or int(key) >= len(owner):
        place = f"override {shorten(override, 200)}: {shorten(key)}"
        raise RecipeError(f"{place} is not an item of that list; it has 0 to {len(owner) - 1}.")
    return int(key)


def _validated(document: Document, path: Path, variables: Mapping[str, str]) -> tuple[LoadedRecipe, list[str]]:
    model = _model_of_kind(document, path)
    try:
        # Through JSON in strict mode: "8" is not a number and 1 is not true, while lists still become tuples.
        context = {ENVIRONMENT: variables}
        recipe = model.model_validate_json(json.dumps(document.values), strict=True, context=context)
    except ValidationError as error:
        raise RecipeError(redacted("\n".join(messages(error, model, document)))) from None
    import_extensions(getattr(recipe, "extensions", ()))
    wrong = [f"{document.location(tuple(field.split('.')))}: {text}" for field, text in inconsistencies(recipe)]
    origins = _origins(recipe, document)
    return LoadedRecipe(_without_stale_spellings(recipe, origins), path, origins), wrong


def _without_stale_spellings(recipe: AnyRecipe, origins: Mapping[str, str]) -> AnyRecipe:
    """A path that was overridden is no longer the one that `paths_as_written` spells."""
    spelled: dict[str, str] = getattr(recipe, AS_WRITTEN, {})
    kept = {field: text for field, text in spelled.items() if origins.get(field) != OVERRIDE}
    return recipe if kept == spelled else recipe.model_copy(update={AS_WRITTEN: kept})


def _model_of_kind(document: Document, path: Path) -> type[AnyRecipe]:
    kinds = ", ".join(KINDS)
    if "kind" not in document.values:
        raise RecipeError(f"{path}: kind is missing. Use one of {kinds}.")
    kind = document.values["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        guess = nearest(str(kind), KINDS)
        hint = f"Did you mean {guess}?" if guess else f"Use one of {kinds}."
        raise RecipeError(f"{document.location(('kind',))}: there is no kind of recipe called {kind!r}. {hint}")
    return KINDS[kind].recipe


def _origins(recipe: BaseModel, document: Document) -> dict[str, str]:
    def walk(value: Any, path: KeyPath) -> dict[str, str]:
        if isinstance(value, dict) and value:
            return {name: origin for key, item in value.items() for name, origin in walk(item, (*path, key)).items()}
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            pairs = [walk(item, (*path, index)) for index, item in enumerate(value)]
            return {name: origin for pair in pairs for name, origin in pair.items()}
        location = document.locations.get(path, "")
        # Values below an overridden section have no location of their own: they came with the override.
        inherited = document.location(path) if len(path) > 1 else ""
        if location.startswith("override ") or (inherited.startswith("override ") and _is_given(document.values, path)):
            return {dotted(path): OVERRIDE}
        return {dotted(path): location or ("default" if not _is_given(document.values, path) else inherited)}

    return walk(plain_values(recipe), ())


def _is_given(values: Any, path: KeyPath) -> bool:
    for part in path:
        inside = part in values if isinstance(values, dict) else isinstance(values, list)
        if not inside:
            return False
        values = values[part]
    return True


def recipe_hash(recipe: BaseModel) -> str:
    """sha256 (hex) of the resolved values, defaults included; the same for every way of writing the recipe.

    Settings that do not change what is learnt (`pokevla.recipe.values.NEUTRAL`) are left out: a run that continues on
    another number of ranks is the same run.
    """
    text = json.dumps(learnt_values(recipe), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def recipe_hash_at(recipe: BaseModel, settings: Mapping[str, Any]) -> str:
    """`recipe_hash` of the recipe with the length that it had when a checkpoint stored `settings`.

    A run that is trained longer is the same run. Checkpoints of earlier versions store no length.
    """
    return recipe_hash(recipe.model_copy(update={name: settings[name] for name in LENGTH if name in settings}))
