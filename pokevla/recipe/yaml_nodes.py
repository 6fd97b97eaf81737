"""YAML text as nodes, within bounds: no aliases, limited depth, numbers of 64 bits.

A few hundred bytes of nested aliases stand for gigabytes of values, and recipes need none.
"""

from __future__ import annotations

from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import Node, ScalarNode

from pokevla.files.texts import shorten

MAX_BYTES = 512 << 10
"""Largest YAML file that is read. A resolved recipe with a thousand datasets has 150 KB."""
MAX_DEPTH = 32
"""Deepest nesting. Recipes have at most six levels."""
MAX_VALUES = 10_000
"""Most values of one file; reading them takes about three seconds."""
_MAX_DIGITS = 400
_CORE_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "null", "str"))


class RefusedYAML(MarkedYAMLError):
    """Valid YAML that recipes do not support. `problem` is the end of a sentence."""


class _BoundedComposer(Composer):
    """Refuses aliases, deep nesting and masses of values while it reads."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader=loader)
        self._depth = 0
        self._count = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        self._depth += 1
        self._count += 1  # keys as well
        problem = (
            f"recipes have no aliases: repeat the value instead of *{event.anchor}" if isinstance(event, AliasEvent)
            else f"this is nested deeper than {MAX_DEPTH} levels" if self._depth > MAX_DEPTH
            else f"the file holds more than {MAX_VALUES} values" if self._count > 2 * MAX_VALUES
            else None
        )  # fmt: skip
        if problem is not None:
            raise RefusedYAML(problem=problem, problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def compose(text: str) -> Node | None:
    """Root node of one YAML 1.2 document; None if it is empty.

    Raises:
        YAMLError: not YAML, or beyond the bounds of this module; a MarkedYAMLError knows the line.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _BoundedComposer
    return yaml.compose(text)


def describe(error: YAMLError, name: str) -> str:
    """`name:line: not valid YAML: reason.`, without the middle part for a RefusedYAML."""
    if not isinstance(error, MarkedYAMLError):
        return f"{name}: not valid YAML: {str(error).splitlines()[0]}."
    mark = error.problem_mark or error.context_mark
    line = f":{mark.line + 1}" if mark else ""
    claim = "" if isinstance(error, RefusedYAML) else "not valid YAML: "
    return f"{name}{line}: {claim}{error.problem or error.context}."


def new_constructor() -> SafeConstructor:
    """What `construct_scalar` works with; making one takes as long as parsing a line, so a file shares it."""
    return YAML(typ="safe", pure=True).constructor


def construct_scalar(node: ScalarNode, constructor: SafeConstructor) -> Any:
    """Value of a scalar by YAML 1.2's core rules: `1e-4` is a number, `24:00:00` and dates are text.

    Raises:
        RefusedYAML: a number beyond 64 bits, a NUL character (no path can hold one), or a value that its tag (`!!int`)
            does not allow.
    """
    if "\0" in node.value:
        raise RefusedYAML(problem="the text holds a NUL character", problem_mark=node.start_mark)
    if node.tag not in _CORE_TAGS or node.tag.endswith(":str"):
        return node.value
    is_long = len(node.value) > _MAX_DIGITS
    try:
        value = 2**64 if is_long else constructor.construct_object(node, deep=True)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        problem = f"{node.value!r} is not of the type {node.tag.rpartition(':')[2]}"
        raise RefusedYAML(problem=problem, problem_mark=node.start_mark) from error
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise RefusedYAML(problem=f"the number {shorten(node.value)} is too large", problem_mark=node.start_mark)
    return value
