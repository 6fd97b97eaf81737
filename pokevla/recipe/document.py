"""YAML with locations: reads a recipe file into plain values and records the location of each.

A location is `file:line`. Values are addressed by their path, a tuple of keys and list indices, written with dots:
`data.datasets.0.path`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from pokevla.errors import RecipeError
from pokevla.files.texts import read_text
from pokevla.packaged_recipes import similar_recipe
from pokevla.recipe.yaml_nodes import MAX_BYTES, RefusedYAML, compose, construct_scalar, describe, new_constructor

KeyPath = tuple[str | int, ...]

# `$${X}` stands for a literal `${X}`. It ends before a backslash: YAML has to read the escapes of quoted text.
_VARIABLE = re.compile(
    r"""\$(?P<literal>\$\{[^}$\n"'\\]*\}?)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^}\n]*)?\}"""
)
# Characters of Unicode's private area: allowed in plain YAML scalars, so that `{path: ${DATA}/x}` parses although
# braces end a plain scalar in flow style.
_OPEN, _CLOSE = "\ue000", "\ue001"
_PLACEHOLDER = re.compile(f"{_OPEN}([0-9]{{1,7}}){_CLOSE}")


@dataclass(frozen=True)
class Template:
    """A scalar with variables in it. It is expanded last, so that an overridden variable need not be set."""

    parts: tuple[str | tuple[str, str | None], ...]
    """Literal text, or (variable, default)."""
    plain: bool
    """Whether it is unquoted, so that `${GPUS:-8}` is a number."""


@dataclass
class Document:
    """Values of one or more merged files, and the location of each."""

    values: dict[str, Any]
    locations: dict[KeyPath, str] = field(default_factory=dict)

    def location(self, path: KeyPath) -> str:
        """Location of a path, or of its nearest ancestor that has one."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.locations:
                return self.locations[path[:end]]
        return self.locations.get((), "")


def dotted(path: Sequence[str | int]) -> str:
    """A path in dotted form: `data.datasets.0.path`."""
    return ".".join(str(part) for part in path)


def read_document(path: Path) -> Document:
    """Read one file. RecipeError if it is missing, not YAML, not a mapping, names a key twice, or is beyond the bounds
    of `yaml_nodes`."""
    with suppress(PermissionError):  # `read_text` says it
        if not path.exists():
            guess = similar_recipe(path)
            did_you_mean = f"Did you mean {guess}? " if guess else ""
            raise RecipeError(f"{path} does not exist.", f"{did_you_mean}`pokevla recipe ls` lists the recipes.")
    return parse_document(read_text(path, max_bytes=MAX_BYTES, kind=RecipeError), display_path(path))


def display_path(path: Path) -> str:
    """The path, relative to the current directory if it is below it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def parse_document(text: str, name: str) -> Document:
    """Parse YAML 1.2 text; `name` is the file's name in locations and messages. Raises what `read_document` raises."""
    prepared, variables = _hide_variables(text)
    document = Document({}, {(): name})
    try:
        root = compose(prepared)
        if root is None:
            return document
        if not isinstance(root, MappingNode):
            raise RecipeError(f"{name}:1: a recipe is a mapping (`field: value` lines).")
        document.values = _Reader(name, variables, document.locations).value(root, ())
    except YAMLError as error:
        raise RecipeError(describe(error, name)) from error
    return document


def parse_value(text: str, location: str) -> Any:
    """Parse the YAML value of an override. RecipeError naming `location` if it is not YAML, or more than one value."""
    values = parse_document(f"value: {text}\n", location).values
    if list(values) != ["value"]:
        raise RecipeError(f"{location}: give one value, in one line of YAML.")
    return values["value"]


def _hide_variables(text: str) -> tuple[str, list[re.Match[str]]]:
    """Replace each `${...}` by a placeholder that YAML reads as plain text; line numbers stay."""
    variables: list[re.Match[str]] = []

    def hide(match: re.Match[str]) -> str:
        variables.append(match)
        return f"{_OPEN}{len(variables) - 1}{_CLOSE}"

    return _VARIABLE.sub(hide, text), variables


@dataclass
class _Reader:
    """Turns YAML nodes into values."""

    name: str
    variables: list[re.Match[str]]
    locations: dict[KeyPath, str]
    constructor: SafeConstructor = field(default_factory=new_constructor)

    def value(self, node: Node, path: KeyPath) -> Any:
        if path:
            self.locations[path] = f"{self.name}:{node.start_mark.line + 1}"
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        raise RecipeError(f"{self.locations[path]}: {dotted(path)} is a type of YAML node that recipes do not support.")

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                raise RecipeError(f"{self.name}:{line}: a field's name must be plain text.")
            key = _PLACEHOLDER.sub(partial(self._literal, key_node), key_node.value)
            if key in values:
                raise RecipeError(f"{self.name}:{line}: {dotted((*path, key))} is given twice.")
            values[key] = self.value(value_node, (*path, key))
            self.locations[*path, key] = f"{self.name}:{line}"
        return values

    def _literal(self, node: Node, placeholder: re.Match[str]) -> str:
        """Original text of a placeholder in a key: variables in field names are not expanded."""
        match = self._variable(placeholder[1], node)
        return match["literal"] if match["literal"] is not None else match[0]

    def _variable(self, index: str, node: Node) -> re.Match[str]:
        if int(index) >= len(self.variables):  # the file itself holds our placeholders
            raise RefusedYAML(problem="the text holds the private character U+E000", problem_mark=node.start_mark)
        return self.variables[int(index)]

    def _scalar(self, node: ScalarNode) -> Any:
        if not _PLACEHOLDER.search(node.value):
            return construct_scalar(node, self.constructor)
        pieces = _PLACEHOLDER.split(node.value)  # literal, index, literal, index, ..., literal
        parts: list[str | tuple[str, str | None]] = []
        for number, piece in enumerate(pieces):
            if number % 2 == 0:
                parts.append(piece)
                continue
            match = self._variable(piece, node)
            if match["literal"] is not None:
                parts.append(match["literal"])
            else:
                parts.append((match["name"], match["default"][2:] if match["default"] is not None else None))
        return Template(tuple(parts), plain=node.style is None)


def merge(base: Document, over: Document) -> Document:
    """`over` on top of `base`: mappings merge field by field, everything else (lists too) replaces."""
    replaced: set[KeyPath] = set()

    def combine(low: dict[str, Any], high: dict[str, Any], path: KeyPath) -> dict[str, Any]:
        result = dict(low)
        for key, value in high.items():
            here = (*path, key)
            if isinstance(value, dict) and isinstance(low.get(key), dict):
                result[key] = combine(low[key], value, here)
            else:
                replaced.add(here)
                result[key] = value
        return result

    values = combine(base.values, over.values, ())
    locations = {
        path: location
        for path, location in base.locations.items()
        if not any(path[:end] in replaced for end in range(1, len(path) + 1))
    }
    return Document(values, locations | over.locations)


def expand(document: Document, environment: Mapping[str, str]) -> Document:
    """Replace every template by its text. RecipeError with the line of each variable that is not set."""
    missing: list[str] = []

    def walk(value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return {key: walk(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, Template):
            return value
        try:
            return expand_template(value, environment)
        except KeyError as error:
            missing.append(
                f"{document.location(path)}: {dotted(path)} uses the environment variable {error.args[0]}, which is "
                f"not set. Set it: export {error.args[0]}=..."
            )
            return None

    values = walk(document.values, ())
    if missing:
        raise RecipeError("\n".join(missing))
    return Document(values, document.locations)


def expand_template(template: Template, environment: Mapping[str, str]) -> Any:
    """Text of a template; plain ones are read as YAML again. KeyError with the name of a variable that is not set."""
    text = ""
    for part in template.parts:
        if isinstance(part, str):
            text += part
            continue
        name, default = part
        # As in a shell, `:-` also replaces an empty variable.
        value = environment.get(name) or default
        if value is None:
            if name not in environment:
                raise KeyError(name)
            value = ""
        text += value
    if not template.plain:
        return text
    try:
        node = compose(text)
        if isinstance(node, ScalarNode) and node.style is None:
            return construct_scalar(node, new_constructor())
    except YAMLError:
        pass  # not valid YAML, such as a path with a colon: plain text
    return text
