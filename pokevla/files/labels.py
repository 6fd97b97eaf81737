"""Names from outside: checked where they enter, and shown without acting on the terminal."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

MAX_NAME = 100
"""Longest name in characters: with a suffix and a temporary prefix it fits the 255 bytes of a file name."""
_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories of characters that move the cursor, change colours or direction, or begin another line."""
_HARMLESS = "\n\t\u200c\u200d"  # the last two join letters of some scripts
_SUSPECT = re.compile(r"[^ -~\n\t]")


def name_problem(name: str) -> str | None:
    """Why `name` cannot be part of a file name, in words; None if it can.

    Refused are separators, control characters, a dot at the beginning, spaces at the ends, and more than `MAX_NAME`
    characters. Other characters are fine, also those that mean something in a pattern or to a shell.
    """
    if not name or len(name) > MAX_NAME:
        return f"it should have 1 to {MAX_NAME} characters"
    if "/" in name or "\\" in name:
        return "it becomes part of a file name, so it cannot hold / or \\"
    if name.startswith(".") or name != name.strip():
        return "it cannot begin with a dot, or begin or end with a space"
    if printable(name) != name or "\n" in name or "\t" in name:
        return "it cannot hold control characters"
    return None


def lies_within(name: str) -> bool:
    """Whether a relative path in a file, such as that of a weights file, stays in its folder: no root, no `..`."""
    path = PurePosixPath(name)
    return name == str(path) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def printable(text: str) -> str:
    r"""Text for a terminal: control characters but newline and tab become visible escapes, such as `\x1b`."""
    return _SUSPECT.sub(_visible, text)


def _visible(match: re.Match[str]) -> str:
    character = match[0]
    if character in _HARMLESS or unicodedata.category(character) not in _INVISIBLE:
        return character
    return character.encode("unicode_escape").decode("ascii")
