"""Turns validation errors into sentences: location, field, what is wrong, and the name that was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pokevla.files.texts import shorten
from pokevla.recipe.document import Document, KeyPath, dotted

_EXPECTED = {
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping (`name: value` lines)",
    "model_type": "a mapping (`field: value` lines)",
    "model_attributes_type": "a mapping (`field: value` lines)",
}
_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The most similar candidate, or None if none has a difflib ratio of at least 0.6."""
    matches = difflib.get_close_matches(name, sorted(candidates), n=1, cutoff=0.6)
    return matches[0] if matches else None


def field_names(model: type[BaseModel]) -> dict[str, str]:
    """Name in the file -> attribute of the model (`global` -> `global_`)."""
    return {info.alias or name: name for name, info in model.model_fields.items()}


def submodels(annotation: Any) -> list[type[BaseModel]]:
    """Sections in an annotation, also inside `X | None`, lists and `Annotated`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in submodels(argument)]


def walk_fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel], str]]:
    """All fields below a model, depth first: (dotted name without list indices, owner, attribute)."""
    for name, attribute in field_names(model).items():
        here = f"{prefix}.{name}" if prefix else name
        yield here, model, attribute
        for section in submodels(model.model_fields[attribute].annotation):
            yield from walk_fields(section, here)


def model_at(root: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel] | None:
    """The section at `path`, or None if there is none."""
    model: type[BaseModel] | None = root
    for part in path:
        if isinstance(part, int):
            continue
        if model is None or part not in field_names(model):
            return None
        sections = submodels(model.model_fields[field_names(model)[part]].annotation)
        model = sections[0] if sections else None
    return model


MAX_MESSAGES = 20
"""Mistakes that are listed; each takes a search for the name that was meant."""
_MAX_SENTENCE = 700


def messages(error: ValidationError, root: type[BaseModel], document: Document) -> list[str]:
    """One line per mistake: `file:line: what is wrong`, in the order of the schema; at most MAX_MESSAGES."""
    items = error.errors(include_url=False)
    sentences = [
        (_without_forms(item["loc"]), shorten(_sentence(item, root), _MAX_SENTENCE)) for item in items[:MAX_MESSAGES]
    ]
    lines = [f"{document.location(place)}: {sentence}" for place, sentence in sentences]
    more = len(items) - len(lines)
    return [*lines, *([f"{document.location(())}: and {more} more mistakes."] if more else [])]


def _without_forms(path: KeyPath) -> KeyPath:
    """A path without the names of the forms that a value may have, which stand in parentheses."""
    return tuple(part for part in path if not (isinstance(part, str) and re.fullmatch(r"\(.*\)", part)))


def _sentence(item: ErrorDetails, root: type[BaseModel]) -> str:
    path = _without_forms(item["loc"])
    kind, name, context = item["type"], dotted(path), item.get("ctx", {})
    given = _shorten(item["input"])
    if kind == "extra_forbidden":
        return unknown_field(path, root)
    if kind == "missing":
        return f"{name} is missing: {_description(path, root)}"
    if kind in _EXPECTED:
        return f"{name} should be {_EXPECTED[kind]}, not {given}."
    if kind in _BOUNDS:
        word, key = _BOUNDS[kind]
        return f"{name} should be {word} {context[key]}, not {given}."
    if kind == "literal_error":
        options = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        guess = nearest(str(item["input"]), options)
        hint = f" Did you mean {guess}?" if guess else ""
        return f"{name} should be one of {', '.join(options)}, not {given}.{hint}"
    if kind == "too_short":
        return f"{name} should have at least {context['min_length']} item(s)."
    if kind == "too_long":
        return f"{name} should have at most {context['max_length']} item(s)."
    return f"{name}: {item['msg']} (given: {given})."


def unknown_field(path: KeyPath, root: type[BaseModel]) -> str:
    """`optim.lerning_rate is not a field of optim. Did you mean lr?`"""
    owner_path, name = path[:-1], str(path[-1])
    section = dotted([part for part in owner_path if isinstance(part, str)])
    where = section or _name_of(root)
    model = model_at(root, owner_path)
    own = field_names(model) if model else {}
    elsewhere = [field for field, _, _ in walk_fields(root) if field.rsplit(".", 1)[-1] == name]
    guess = elsewhere[0] if elsewhere else nearest(name, own) or _by_meaning(name, model)
    if guess:
        hint = f"Did you mean {guess}?"
    else:
        is_long = len(own) > 12 and "kind" in root.model_fields  # recipes have a reference, profiles have not
        hint = f"Its fields: {', '.join(own)}." if own and not is_long else "See docs/recipe_reference.md."
    return f"{dotted(path)} is not a field of {where}. {hint}".rstrip()


def _by_meaning(name: str, model: type[BaseModel] | None) -> str | None:
    """The field whose description has a phrase similar to `name`: `lerning_rate` -> `lr` ("learning rate")."""
    if model is None:
        return None
    words = name.replace("_", " ").lower()
    hits = []
    for field, attribute in field_names(model).items():
        text = (model.model_fields[attribute].description or "").lower().replace(".", " ").replace(",", " ").split()
        width = len(words.split())
        phrases = [" ".join(text[start : start + width]) for start in range(len(text) - width + 1)]
        score = max((difflib.SequenceMatcher(None, words, phrase).ratio() for phrase in phrases), default=0.0)
        hits.append((score, field))
    score, field = max(hits, default=(0.0, ""))
    return field if score >= 0.85 else None


def _description(path: KeyPath, root: type[BaseModel]) -> str:
    model = model_at(root, path[:-1])
    attribute = field_names(model).get(str(path[-1])) if model else None
    text = (model.model_fields[attribute].description or "") if model and attribute else ""
    return " ".join(text.split())


def _name_of(root: type[BaseModel]) -> str:
    """`a pretrain recipe`; a model without kind (a cluster profile) by its own name."""
    kinds = get_args(root.model_fields["kind"].annotation) if "kind" in root.model_fields else ()
    return f"a {kinds[0]} recipe" if kinds else f"a {root.__name__.lower()}"


def _shorten(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
