"""Reads what we need of a task's BDDL file, and refuses one that LIBERO's own reader must not see."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pokevla.errors import SimulationError
from pokevla.files.texts import open_regular

MAX_BYTES = 1 << 18
"""Of a BDDL file. The official ones have up to 8 kB."""
_NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?"
_ANGLE = re.compile(rf"[-+]?({_NUMBER}|pi)([*/]{_NUMBER})?")
"""What `:yaw_rotation` may contain: LIBERO's reader passes its words to Python's `eval` (`get_regions` in
libero/libero/envs/bddl_utils.py), and these files are the user's."""


@dataclass(frozen=True)
class BddlFile:
    """`problem`: class of the scene, lower case. `instruction`: its `:language`, as LIBERO's reader gives it: lower
    case, words separated by one blank. `categories`: kinds of objects and fixtures in the scene."""

    path: Path
    problem: str
    instruction: str
    objects_of_interest: tuple[str, ...]
    categories: tuple[str, ...]


def read_bddl(path: Path) -> BddlFile:
    """Read a BDDL file. SimulationError if it cannot be read, is damaged, or has an angle that is no number."""
    remedy = "Take LIBERO-Plus from github.com/sylvestf/LIBERO-plus anew."
    try:
        with open_regular(path) as file:
            text = file.read(MAX_BYTES + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SimulationError(f"{path} cannot be read ({error}).", remedy) from error
    tree = _tree(text) if len(text) <= MAX_BYTES else None
    if tree is None or tree[:1] != ["define"]:
        raise SimulationError(f"{path} is no BDDL file.", remedy)
    groups = {group[0]: group[1:] for group in tree if isinstance(group, list) and group and isinstance(group[0], str)}
    lacking = {"problem", ":language", ":obj_of_interest", ":objects", ":fixtures", ":regions"} - set(groups)
    if lacking or not groups["problem"]:
        raise SimulationError(f"{path} has no {', '.join(sorted(lacking)) or 'name'}.", remedy)
    for word in _angles(groups[":regions"]):
        if not _ANGLE.fullmatch(word):
            raise SimulationError(f"{path}: :yaw_rotation has {word!r}, which is no number.", remedy)
    words = {name: [word for word in group if isinstance(word, str)] for name, group in groups.items()}
    return BddlFile(
        path=path,
        problem=words["problem"][-1],
        instruction=" ".join(words[":language"]),
        objects_of_interest=tuple(words[":obj_of_interest"]),
        categories=tuple(_categories(words[":objects"]) + _categories(words[":fixtures"])),
    )


def _tree(text: str) -> list[Any] | None:
    """Nested lists of the lower-case words between parentheses; None if these do not match."""
    text = re.sub(r";.*$", "", text, flags=re.MULTILINE).lower()
    open_groups: list[list[Any]] = [[]]
    for word in re.findall(r"[()]|[^\s()]+", text):
        if word == "(":
            open_groups.append([])
        elif word == ")":
            closed = open_groups.pop()
            if not open_groups:
                return None
            open_groups[-1].append(closed)
        else:
            open_groups[-1].append(word)
    complete = len(open_groups) == 1 and len(open_groups[0]) == 1 and isinstance(open_groups[0][0], list)
    return open_groups[0][0] if complete else None


def _angles(regions: list[Any]) -> list[str]:
    """Every word below `:yaw_rotation`, at any depth."""
    found: list[str] = []
    pending: list[tuple[Any, bool]] = [(regions, False)]
    while pending:
        part, inside = pending.pop()
        if isinstance(part, list):
            inside = inside or part[:1] == [":yaw_rotation"]
            pending.extend((inner, inside) for inner in part)
        elif inside and part != ":yaw_rotation":
            found.append(part)
    return found


def _categories(words: list[str]) -> list[str]:
    """Of `name name - category name - category`: the words after a dash."""
    return [after for before, after in pairwise(words) if before == "-"]
