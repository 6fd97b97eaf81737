"""Documentation of all recipe fields: types, defaults, docstrings. For `recipe explain` and the reference page."""

from __future__ import annotations

import types
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from pokevla.recipe.kinds import KINDS
from pokevla.recipe.messages import field_names, submodels, walk_fields

_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", type(None): "null"}
_BOUNDS = (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most"))


@dataclass(frozen=True)
class FieldDoc:
    """Documentation of one field."""

    name: str
    """Dotted name."""
    kinds: tuple[str, ...]
    """Kinds of recipe that have it."""
    type: str
    default: str
    text: str


def field_docs() -> list[FieldDoc]:
    """All fields of all kinds, in the order of the schema. Fields that kinds share appear once."""
    kinds_by_field: dict[tuple[str, str, str], list[str]] = {}
    for kind, entry in KINDS.items():
        for name, owner, attribute in walk_fields(entry.recipe):
            info = owner.model_fields[attribute]
            text = " ".join((info.description or "").split())
            kinds_by_field.setdefault(
                (name, type_text(owner, attribute), f"{default_text(owner, attribute)}\0{text}"), []
            ).append(kind)
    docs = []
    for (name, kind_of_value, rest), kinds in kinds_by_field.items():
        default, text = rest.split("\0")
        docs.append(FieldDoc(name, tuple(kinds), kind_of_value, default, text))
    return docs


def type_text(owner: type[BaseModel], attribute: str) -> str:
    """Type of a field in words, with its bounds."""
    info = owner.model_fields[attribute]
    words = _type_words(info.annotation)
    bounds = _bounds(info.metadata)
    return f"{words}, {bounds}" if bounds else words


def _type_words(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = _bounds(list(arguments[1:]))
        inner = _type_words(arguments[0])
        return f"{inner} {bounds}" if bounds else inner
    if origin is Literal:
        return " | ".join(str(argument) for argument in arguments)
    if origin in (Union, types.UnionType):
        return " | ".join(_type_words(argument) for argument in arguments)
    if origin is list or (origin is tuple and arguments[-1] is Ellipsis):
        return f"list of {_type_words(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(_type_words(argument) for argument in arguments)}]"
    if origin is dict:
        return f"mapping of {_type_words(arguments[0])} to {_type_words(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return _NAMES.get(annotation, str(annotation))


def _bounds(metadata: list[Any]) -> str:
    parts = []
    for item in metadata:
        for nested in getattr(item, "metadata", [item]):
            parts += [
                f"{word} {getattr(nested, name):g}" for name, word in _BOUNDS if getattr(nested, name, None) is not None
            ]
            if getattr(nested, "min_length", None) is not None:
                parts.append(f"at least {nested.min_length}")
    return ", ".join(dict.fromkeys(parts))


def default_text(owner: type[BaseModel], attribute: str) -> str:
    """Default of a field as in YAML; `required` if there is none."""
    info = owner.model_fields[attribute]
    if info.default is PydanticUndefined:
        return "required"
    if isinstance(info.default, BaseModel):
        return "its fields' defaults"
    if info.default is None:
        return "null"
    if isinstance(info.default, bool):
        return str(info.default).lower()
    if isinstance(info.default, tuple):
        return f"[{', '.join(str(item) for item in info.default)}]"
    return str(info.default)


def reference_page() -> str:
    """The reference page in Markdown, all kinds of recipe."""
    lines = [
        "# Recipe reference",
        "",
        "Generated from `pokevla/recipe` by `pokevla recipe reference`; do not edit.",
        "How recipes are loaded, extended and overridden: [recipes.md](recipes.md).",
        "",
    ]
    models = {name: entry.recipe for name, entry in KINDS.items()}
    for kind, model in models.items():
        lines += [f"## kind: {kind}", "", " ".join((model.__doc__ or "").split()), "", *_table(model)]
    lines += ["## Sections", ""]
    places: dict[type[BaseModel], list[str]] = {}
    for model in models.values():
        for name, owner, attribute in walk_fields(model):
            for section in submodels(owner.model_fields[attribute].annotation):
                places.setdefault(section, []).append(name)
    for section, names in places.items():
        heading = ", ".join(f"`{name}`" for name in dict.fromkeys(names))
        lines += [f"### {heading}", "", " ".join((section.__doc__ or "").split()), "", *_table(section)]
    return "\n".join(lines).rstrip() + "\n"


def _table(model: type[BaseModel]) -> list[str]:
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, attribute in field_names(model).items():
        text = " ".join((model.model_fields[attribute].description or "").split())
        cells = [f"`{name}`", type_text(model, attribute), default_text(model, attribute), text]
        rows.append("| " + " | ".join(cell.replace("|", "\\|").replace("<", "\\<") for cell in cells) + " |")
    return [*rows, ""]
