"""A resolved recipe as YAML text with the origin of each value; `load_recipe` of it gives the same recipe."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import ScalarNode

from pokevla.recipe.document import KeyPath, dotted
from pokevla.recipe.load import OVERRIDE, LoadedRecipe
from pokevla.recipe.paths import AS_WRITTEN, with_absolute_paths
from pokevla.recipe.values import plain_values
from pokevla.recipe.yaml_nodes import compose

_PLAIN_TEXT = re.compile(r"[A-Za-z_./~][A-Za-z0-9_./~+-]*")
_STRING_TAG = "tag:yaml.org,2002:str"
_COMMENT_COLUMN = 56


def dump_recipe(loaded: LoadedRecipe) -> str:
    """All values of the recipe, including defaults, each with its origin as a comment. No `extends`, no variables."""
    lines = [f"# Resolved from {loaded.path}. Every value is here; the comment says where it came from."]
    _emit_mapping(plain_values(loaded.recipe), (), 0, loaded.origins, lines)
    return "\n".join(lines) + "\n"


def dump_absolute(loaded: LoadedRecipe) -> str:
    """`dump_recipe` with absolute paths, for a run or job that may continue in another working directory."""
    return dump_recipe(replace(loaded, recipe=with_absolute_paths(loaded.recipe)))


def dump_changed(path: Path, loaded: LoadedRecipe, origin: str) -> str:
    """The dumped recipe `path` with the overrides of `loaded`, which was read from it. Overridden values get `origin`,
    all others keep the origin in their comment."""
    lines = path.read_text(encoding="utf-8").splitlines()
    origins = {
        field: origin if location == OVERRIDE else _origin_in_comment(lines, location)
        for field, location in loaded.origins.items()
    }
    header, _, rest = dump_recipe(replace(loaded, origins=origins)).partition("\n")
    return (lines[0] if lines[0].startswith("# Resolved from") else header) + "\n" + rest


def _origin_in_comment(lines: list[str], location: str) -> str:
    """Origin from the comment at the end of a line of the dumped recipe; `location` is its `file:line`."""
    number = location.rpartition(":")[2]
    if not number.isdecimal():
        return location
    _, comment, origin = lines[int(number) - 1].rpartition("  # ")
    return origin if comment else location


def _emit_mapping(values: dict[str, Any], path: KeyPath, indent: int, origins: dict[str, str], out: list[str]) -> None:
    for key, value in values.items():
        here = (*path, key)
        head = f"{' ' * indent}{_scalar(key)}:"
        if isinstance(value, dict) and value:
            out.append(head)
            _emit_mapping(value, here, indent + 2, origins, out)
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            out.append(head)
            for index, item in enumerate(value):
                block: list[str] = []
                _emit_mapping(item, (*here, index), indent + 4, origins, block)
                out.append(f"{' ' * (indent + 2)}- {block[0].lstrip()}")
                out.extend(block[1:])
        else:
            line = f"{head} {_inline(value)}"
            origin = origins.get(dotted(here), "") if here[0] != AS_WRITTEN else ""
            out.append(f"{line.ljust(_COMMENT_COLUMN)}  # {origin}" if origin else line)


def _inline(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_inline(item) for item in value)}]"
    if isinstance(value, dict):
        return "{}"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN_TEXT.fullmatch(value) and _reads_as_text(value):
        return value
    # YAML's double-quoted style is JSON's, but more unprintable characters must be escaped.
    escaped = "".join(
        char if char.isprintable() or ord(char) < 0x20 else f"\\U{ord(char):08x}"
        for char in json.dumps(value, ensure_ascii=False)
    )
    return escaped.replace("${", "$${")


def _reads_as_text(text: str) -> bool:
    try:
        node = compose(text)
    except YAMLError:  # `...` ends a document
        return False
    return isinstance(node, ScalarNode) and node.tag == _STRING_TAG and node.value == text
